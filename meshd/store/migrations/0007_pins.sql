-- What this store holds the portals' logs to: the newest checkpoint that was believed of each, and the receipts.

CREATE TABLE portal_pins (
    account     TEXT PRIMARY KEY,
    origin      TEXT NOT NULL,                -- of the log
    keys        TEXT NOT NULL,                -- vkeys, a line each: those of the first contact, or of the policy file
    size        INTEGER NOT NULL,
    root        BLOB NOT NULL,
    note        TEXT NOT NULL,                -- the signed checkpoint itself
    time        INTEGER NOT NULL,             -- ms since 1970: when it was believed
    fresh       INTEGER NOT NULL,             -- ms: until when a newer checkpoint is not missed; 0 = the portal says none
    suspect     INTEGER NOT NULL DEFAULT 0,   -- ms since when it proves nothing more; 0 = it does
    why         TEXT NOT NULL DEFAULT '',
    owes        INTEGER NOT NULL DEFAULT 0,   -- 1 = a newer checkpoint does not mend it: a receipt, or what a sibling saw
    frozen      INTEGER NOT NULL DEFAULT 0,   -- ms since when nothing from it is believed; 0 = it is
    evidence    TEXT NOT NULL DEFAULT ''      -- what a third party can check: JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE portal_receipts (
    account     TEXT NOT NULL,
    vid         BLOB NOT NULL,
    place       INTEGER NOT NULL,             -- index of the leaf
    proof       TEXT NOT NULL,                -- tlog-proof with the salt and the digest of the content
    PRIMARY KEY (account, vid)
) STRICT, WITHOUT ROWID;

CREATE TABLE portal_heard (                   -- the newest checkpoint that each other device of the mesh has shown
    origin      TEXT NOT NULL,
    device      TEXT NOT NULL,
    note        TEXT NOT NULL,
    agreed      INTEGER NOT NULL DEFAULT 0,   -- ms: when it was proved to be of the same tree as the pin; 0 = not yet
    PRIMARY KEY (origin, device)
) STRICT, WITHOUT ROWID;
