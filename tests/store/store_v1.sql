-- A store as the first release of meshd wrote it. Never edit: later releases must read it.
PRAGMA application_id = 1836279908;
PRAGMA journal_mode = WAL;
BEGIN TRANSACTION;
CREATE TABLE drafts (                 -- writes that wait for a key rotation, sealed for this device
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    created     INTEGER NOT NULL,
    sealed      BLOB NOT NULL
) STRICT;
CREATE TABLE edges (                  -- the DAG of each entry
    parent      BLOB NOT NULL,
    child       BLOB NOT NULL,
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (                 -- what the local API tells, by gap-free ids that outlive restarts
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    time        INTEGER NOT NULL,
    type        TEXT NOT NULL,
    data        TEXT NOT NULL         -- JSON object
) STRICT;
INSERT INTO "events" VALUES(1,1750000002000,'joined','{}');
CREATE TABLE forks (                  -- two versions of one signer with one n: the evidence
    signer      TEXT NOT NULL,
    n           INTEGER NOT NULL,
    first       BLOB NOT NULL,
    second      BLOB NOT NULL,
    PRIMARY KEY (signer, n, first, second)
) STRICT, WITHOUT ROWID;
CREATE TABLE item_index (             -- one row an item, sealed under K_cache; rebuildable
    identifier  TEXT PRIMARY KEY,
    vid         BLOB NOT NULL,
    sealed      BLOB NOT NULL
) STRICT;
CREATE TABLE meta (                   -- mesh, own udf, store_id (8 random bytes), healed store-ids
    key         TEXT PRIMARY KEY,
    value       BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('store_id',X'3132333435363738');
CREATE TABLE outbox (                 -- what each portal has still to get
    portal      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    due         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (portal, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE pairing (                -- attempts and back-off, pending connections: JSON by name
    name        TEXT PRIMARY KEY,
    state       TEXT NOT NULL
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
INSERT INTO "peers" VALUES('DEVICE',X'0102030405060708',12,0,'[]',0,'');
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
INSERT INTO "versions" VALUES(1,X'0101010101010101010101010101010101010101010101010101010101010101',3,'MASTER','MASTER',0,1,1750000000,1750000000123,1,1,'mnt1;g=1',X'0202020202020202020202020202020202020202020202020202020202020202',X'86726177');
INSERT INTO "versions" VALUES(4,X'0303030303030303030303030303030303030303030303030303030303030303',8,'VAULT/item','DEVICE',7,1,1750000001,1750000001123,2,0,'mnt1;n=7;g=1',X'0404040404040404040404040404040404040404040404040404040404040404',X'86726177');
CREATE TABLE waits (                  -- a pending version and what it still needs
    need        BLOB NOT NULL,
    vid         BLOB NOT NULL,
    PRIMARY KEY (need, vid)
) STRICT, WITHOUT ROWID;
INSERT INTO "waits" VALUES(X'07',X'0303030303030303030303030303030303030303030303030303030303030303');
CREATE INDEX versions_entry ON versions (kind, identifier, head, vid);
CREATE INDEX versions_chain ON versions (signer, n);
CREATE INDEX versions_aside ON versions (state, kind) WHERE state <> 1;
CREATE INDEX versions_pending ON versions (kind, identifier) WHERE state = 2;
CREATE VIEW heads AS SELECT kind, identifier, vid FROM versions WHERE head = 1;
CREATE TRIGGER heads_insert INSTEAD OF INSERT ON heads BEGIN
    UPDATE versions SET head = 1 WHERE vid = NEW.vid AND head = 0;
END;
CREATE TRIGGER heads_delete INSTEAD OF DELETE ON heads BEGIN
    UPDATE versions SET head = 0 WHERE vid = OLD.vid;
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('versions',9);
INSERT INTO "sqlite_sequence" VALUES('events',1);
COMMIT;
PRAGMA user_version = 1;
