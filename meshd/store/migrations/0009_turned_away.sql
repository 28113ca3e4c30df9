-- Whose versions found no room aside: said by status, and asked for again when they may stand after all.

CREATE TABLE turned_away (
    signer      TEXT PRIMARY KEY,
    count       INTEGER NOT NULL      -- how often a version of his was offered for which there was no room
) STRICT, WITHOUT ROWID;
