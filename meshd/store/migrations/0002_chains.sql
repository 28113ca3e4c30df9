-- Each signer's chain (formats.md F1), kept so that the next write and a fork's healing need no walk.

CREATE TABLE tips (                   -- versions of a signer that no version of that signer follows
    signer      TEXT NOT NULL,
    vid         BLOB NOT NULL,
    PRIMARY KEY (signer, vid)
) STRICT, WITHOUT ROWID;

CREATE TABLE holes (                  -- predecessors that are named but have not come; never a reason to park a version
    need        BLOB NOT NULL,
    vid         BLOB NOT NULL,
    PRIMARY KEY (need, vid)
) STRICT, WITHOUT ROWID;
