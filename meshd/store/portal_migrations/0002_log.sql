-- The log that nobody can rewrite (docs/specs/log.md): a Merkle tree over the places of `versions`. The leaf of place p
-- has the index p - 1. Leaves of what was stored before are made when the store is first opened by this release.

CREATE TABLE leaves (
    place       INTEGER PRIMARY KEY,  -- versions.seq
    salt        BLOB NOT NULL,        -- 16 bytes: blinds the index terms
    leaf        BLOB NOT NULL         -- deterministic CBOR, never changed: what the tree commits to
) STRICT;

CREATE TABLE nodes (                  -- of whole subtrees: 2^level leaves from number * 2^level on; level 1 and up
    level       INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (            -- one for each commit that added leaves; the last is compared before the next
    size        INTEGER PRIMARY KEY,
    root        BLOB NOT NULL,
    time        INTEGER NOT NULL,
    note        TEXT                  -- signed note with the cosignatures that came; NULL = not signed yet
) STRICT;

CREATE TABLE log_keys (               -- Ed25519; who reads this table can sign as this portal
    vkey        TEXT PRIMARY KEY,     -- name+hash+key, as everybody may know it
    role        TEXT NOT NULL,        -- log | witness
    secret      BLOB NOT NULL,        -- 32 bytes
    created     INTEGER NOT NULL,
    until       INTEGER               -- replaced: signs beside the new one until then
) STRICT, WITHOUT ROWID;

CREATE TABLE log_peers (              -- portals and witnesses that this portal knows by their keys
    origin      TEXT PRIMARY KEY,     -- of its log; of a witness without a log: its name
    url         TEXT NOT NULL,        -- prefix of add-checkpoint; empty: it is not asked
    log_keys    TEXT NOT NULL,        -- vkeys, one a line, by which its checkpoints are signed; empty: it has no log
    witness_keys TEXT NOT NULL,       -- vkeys, one a line, by which it cosigns ours
    state       TEXT NOT NULL DEFAULT 'Unreachable',  -- Consistent | Stale | Unreachable | Equivocated
    size        INTEGER NOT NULL DEFAULT 0,   -- of its newest checkpoint that we cosigned; 0: none yet
    root        BLOB,
    note        TEXT,                 -- that checkpoint with our cosignature
    seen        INTEGER NOT NULL DEFAULT 0,
    evidence    TEXT                  -- JSON: two notes that contradict each other
) STRICT, WITHOUT ROWID;

CREATE TABLE peer_proofs (            -- consistency proofs that peers gave, step by step
    origin      TEXT NOT NULL,
    size        INTEGER NOT NULL,     -- to
    before      INTEGER NOT NULL,     -- from
    hashes      BLOB NOT NULL,        -- 32 bytes each
    PRIMARY KEY (origin, size)
) STRICT, WITHOUT ROWID;
