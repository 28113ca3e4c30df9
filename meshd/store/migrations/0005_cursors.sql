-- What makes a cursor mean the same versions to both sides, also after a backup was restored (docs/specs/sync.md).

CREATE TABLE runs (                   -- each time this store was opened for writing, oldest first
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    run         BLOB NOT NULL UNIQUE, -- 8 random bytes
    last        INTEGER               -- the last seq given in it or before; NULL = it is the present one
) STRICT;

ALTER TABLE peers ADD COLUMN run BLOB;   -- of their store, in which they told us of the version at the cursor
ALTER TABLE peers ADD COLUMN vid BLOB;   -- that version
