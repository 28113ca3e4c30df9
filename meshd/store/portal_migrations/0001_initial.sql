-- A portal's store as its first release writes it. One transaction; portal_db.py sets user_version to this file's number.
-- Times are UTC seconds; vids are 32 bytes; UDFs, Identifiers and account names are text.

CREATE TABLE meta (
    key         TEXT PRIMARY KEY,
    value       BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Whatever belongs together: one master key, its account, and what that uses. The sums follow every insert.
CREATE TABLE meshes (
    id          INTEGER PRIMARY KEY,
    udf         TEXT NOT NULL UNIQUE,
    bytes       INTEGER NOT NULL DEFAULT 0,
    entries     INTEGER NOT NULL DEFAULT 0,
    quarantined_bytes INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    escrow      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE accounts (
    name        TEXT PRIMARY KEY,
    mesh        INTEGER NOT NULL UNIQUE,
    created     INTEGER NOT NULL,
    status      TEXT NOT NULL,
    old         INTEGER NOT NULL,     -- 1 = of 2016
    compat      INTEGER NOT NULL,     -- 1 = 2016 clients may administer it
    asked       INTEGER NOT NULL DEFAULT 0    -- 1 = somebody has ever asked to be connected
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (                -- who reads this table can't use them
    digest      BLOB PRIMARY KEY,     -- SHA-256 of the token
    expires     INTEGER NOT NULL,
    note        TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
    name        TEXT PRIMARY KEY,
    token       TEXT NOT NULL,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Everything that was published, in the order in which it was committed: `seq` is the place in the log. AUTOINCREMENT
-- gives no number twice and, as failed transactions give theirs back, leaves none out.
CREATE TABLE versions (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    vid         BLOB NOT NULL UNIQUE,
    kind        INTEGER NOT NULL,
    identifier  TEXT NOT NULL,
    mesh        INTEGER,              -- NULL = an escrow entry of 2016 that nobody owns
    signer      TEXT NOT NULL,
    n           INTEGER NOT NULL,
    gen         INTEGER NOT NULL,
    added       INTEGER NOT NULL,     -- never less than that of the one before
    state       INTEGER NOT NULL,     -- 1 applied, 2 pending, 3 quarantined
    head        INTEGER NOT NULL,     -- 1 = applied, and no applied version replaces it; of escrow: the one there is
    old         INTEGER NOT NULL,     -- 1 = a document of 2016
    prior       INTEGER,              -- place of the version that this one replaces
    token       TEXT NOT NULL,        -- NotaryToken; with digest it proves the vid where raw is gone
    digest      BLOB NOT NULL,
    raw         BLOB                  -- F4 bytes; NULL = erased
) STRICT;
CREATE INDEX versions_entry ON versions (identifier, kind, head);
CREATE INDEX versions_feed ON versions (mesh, seq);
CREATE INDEX versions_chain ON versions (signer, n);
CREATE INDEX versions_profiles ON versions (mesh, kind) WHERE kind = 1;
CREATE INDEX versions_pending ON versions (mesh) WHERE state = 2;

-- Master and device profiles: they come inside personal profiles and are no places in the log.
CREATE TABLE parts (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    vid         BLOB NOT NULL UNIQUE,
    kind        INTEGER NOT NULL,
    identifier  TEXT NOT NULL,
    mesh        INTEGER NOT NULL,
    signer      TEXT NOT NULL,
    n           INTEGER NOT NULL,
    gen         INTEGER NOT NULL,
    added       INTEGER NOT NULL,
    token       TEXT NOT NULL,
    raw         BLOB NOT NULL
) STRICT;
CREATE INDEX parts_entry ON parts (identifier, kind);
CREATE INDEX parts_mesh ON parts (mesh, kind);
CREATE INDEX parts_chain ON parts (signer, n);

CREATE TABLE rows (                   -- what is left of versions that were pruned before they came here
    vid         BLOB PRIMARY KEY,
    kind        INTEGER NOT NULL,
    identifier  TEXT NOT NULL,
    mesh        INTEGER NOT NULL,
    signer      TEXT NOT NULL,
    n           INTEGER NOT NULL,
    gen         INTEGER NOT NULL,
    token       TEXT NOT NULL,
    digest      BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX rows_chain ON rows (signer, n);

CREATE TABLE signers (                -- Ed25519 signature keys; a fingerprint is the hash of its key
    udf         TEXT PRIMARY KEY,
    key         BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (                -- the newest profile of each device: most edits, then smaller vid
    udf         TEXT PRIMARY KEY,
    dak         TEXT NOT NULL,
    key         BLOB NOT NULL,
    gen         INTEGER NOT NULL,
    vid         BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_dak ON devices (dak);

CREATE TABLE members (                -- which meshes list or listed a device
    device      TEXT NOT NULL,
    mesh        INTEGER NOT NULL,
    PRIMARY KEY (device, mesh)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices_2016 (           -- of the current profiles of accounts of 2016
    device      TEXT NOT NULL,
    mesh        INTEGER NOT NULL,
    dak         TEXT NOT NULL,
    PRIMARY KEY (device, mesh)
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_2016_dak ON devices_2016 (dak);
CREATE INDEX devices_2016_mesh ON devices_2016 (mesh);

CREATE TABLE held (                   -- documents of 2016 that came before the profile that lists them
    identifier  TEXT PRIMARY KEY,
    raw         BLOB NOT NULL,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pending (
    account     TEXT NOT NULL,
    device      TEXT NOT NULL,
    dak         TEXT NOT NULL,
    key         BLOB NOT NULL,        -- of the authentication key; empty: a device of 2016
    request     BLOB NOT NULL,
    asked       INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    old         INTEGER NOT NULL,
    wire        TEXT NOT NULL,        -- JSON
    PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_dak ON pending (dak);

CREATE TABLE answers (
    account     TEXT NOT NULL,
    device      TEXT NOT NULL,
    dak         TEXT NOT NULL,
    key         BLOB NOT NULL,
    request     BLOB NOT NULL,
    given       INTEGER NOT NULL,
    wire        TEXT NOT NULL,
    PRIMARY KEY (device, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_dak ON answers (dak);

CREATE TABLE notices (                -- what a person should hear of
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    time        INTEGER NOT NULL,
    mesh        TEXT NOT NULL,
    what        TEXT NOT NULL,
    about       TEXT NOT NULL
) STRICT;

CREATE TABLE peers (                  -- portals that may ask for the log
    keyid       TEXT PRIMARY KEY,
    key         BLOB NOT NULL,
    granted     TEXT NOT NULL,        -- leaves | full
    name        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
