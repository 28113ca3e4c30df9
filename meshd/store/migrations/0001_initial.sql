-- The store as its first release writes it (formats.md F8). One transaction; db.py sets user_version to this file's number.
-- Times are milliseconds since 1970 unless a column says otherwise; vids are 32 bytes; UDFs and Identifiers are text.

CREATE TABLE meta (                   -- mesh, own udf, store_id (8 random bytes), healed store-ids
    key         TEXT PRIMARY KEY,
    value       BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Every version held, in the order in which it was committed here. AUTOINCREMENT: a seq that a peer's cursor may have
-- passed is never given to another version, also after rows were deleted.
CREATE TABLE versions (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    vid         BLOB NOT NULL UNIQUE,
    kind        INTEGER NOT NULL,
    identifier  TEXT NOT NULL,
    signer      TEXT NOT NULL,
    n           INTEGER NOT NULL,     -- place in the signer's chain; 0 = signed by the master key
    gen         INTEGER NOT NULL,     -- generation in the entry's DAG
    updated     INTEGER NOT NULL,     -- what the author says, seconds; never decides anything
    received    INTEGER NOT NULL,     -- this device's own record of receipt
    state       INTEGER NOT NULL,     -- 1 applied, 2 pending, 3 quarantined
    head        INTEGER NOT NULL DEFAULT 0,   -- 1 = applied, and no applied version replaces it
    token       TEXT NOT NULL,        -- NotaryToken; with digest it proves the vid of a pruned row
    digest      BLOB NOT NULL,        -- SHA-256 of the bytes that the signature covers
    raw         BLOB                  -- the signed entry as it came; NULL = pruned to a row
) STRICT;
-- Entries and their heads in one index, which answers both without touching the rows. Identifiers are random, so every
-- further index over them costs a first sync a page per row; that is why heads are no table of their own.
CREATE INDEX versions_entry ON versions (kind, identifier, head, vid);
CREATE INDEX versions_chain ON versions (signer, n);
-- Few rows, so these cost nothing; SQLite takes them only for a query that says the same condition in the same words.
CREATE INDEX versions_aside ON versions (state, kind) WHERE state <> 1;
CREATE INDEX versions_pending ON versions (kind, identifier) WHERE state = 2;

-- The heads of every entry, to be read and written like a table; a head that is no version can't be said.
-- Where it is known at once, inserting the version with head = 1 saves a quarter of the work.
CREATE VIEW heads AS SELECT kind, identifier, vid FROM versions WHERE head = 1;
CREATE TRIGGER heads_insert INSTEAD OF INSERT ON heads BEGIN
    UPDATE versions SET head = 1 WHERE vid = NEW.vid AND head = 0;
END;
CREATE TRIGGER heads_delete INSTEAD OF DELETE ON heads BEGIN
    UPDATE versions SET head = 0 WHERE vid = OLD.vid;
END;

CREATE TABLE edges (                  -- the DAG of each entry
    parent      BLOB NOT NULL,
    child       BLOB NOT NULL,
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;

CREATE TABLE waits (                  -- a pending version and what it still needs
    need        BLOB NOT NULL,
    vid         BLOB NOT NULL,
    PRIMARY KEY (need, vid)
) STRICT, WITHOUT ROWID;

CREATE TABLE forks (                  -- two versions of one signer with one n: the evidence
    signer      TEXT NOT NULL,
    n           INTEGER NOT NULL,
    first       BLOB NOT NULL,
    second      BLOB NOT NULL,
    PRIMARY KEY (signer, n, first, second)
) STRICT, WITHOUT ROWID;

CREATE TABLE peers (
    udf         TEXT PRIMARY KEY,
    store_id    BLOB,                 -- theirs, as last told; NULL = never met
    cursor      INTEGER NOT NULL DEFAULT 0,   -- their seq up to which we hold everything
    their_ack   INTEGER NOT NULL DEFAULT 0,   -- our seq up to which they hold everything
    addresses   TEXT NOT NULL DEFAULT '[]',   -- JSON list of "host:port", best first
    last_seen   INTEGER NOT NULL DEFAULT 0,
    name        TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE TABLE events (                 -- what the local API tells, by gap-free ids that outlive restarts
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    time        INTEGER NOT NULL,
    type        TEXT NOT NULL,
    data        TEXT NOT NULL         -- JSON object
) STRICT;

CREATE TABLE outbox (                 -- what each portal has still to get
    portal      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    due         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (portal, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE drafts (                 -- writes that wait for a key rotation, sealed for this device
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    created     INTEGER NOT NULL,
    sealed      BLOB NOT NULL
) STRICT;

CREATE TABLE item_index (             -- one row an item, sealed under K_cache; rebuildable
    identifier  TEXT PRIMARY KEY,
    vid         BLOB NOT NULL,
    sealed      BLOB NOT NULL
) STRICT;

CREATE TABLE pairing (                -- attempts and back-off, pending connections: JSON by name
    name        TEXT PRIMARY KEY,
    state       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
