-- What shows only beside the versions that a version names (formats.md F1, F5), and only when they are here.

CREATE TABLE misfits (                -- versions that do not fit what they name: kept, for chains run through them, never applied
    vid         BLOB PRIMARY KEY,
    final       INTEGER NOT NULL,     -- 0 = a container whose readers are judged again when a device profile comes
    why         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE joins (                  -- versions that name two or more predecessors: healed forks
    tip         BLOB NOT NULL,
    vid         BLOB NOT NULL,
    PRIMARY KEY (tip, vid)
) STRICT, WITHOUT ROWID;

ALTER TABLE forks ADD COLUMN grown INTEGER NOT NULL DEFAULT 0;   -- 1 = a branch that went on past its healing

CREATE INDEX waits_vid ON waits (vid);   -- does a version still wait for anything?
