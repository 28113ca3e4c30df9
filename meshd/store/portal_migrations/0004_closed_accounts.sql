-- A mesh whose account was closed may have another: of those that are not closed it has one.
CREATE TABLE accounts_kept (
    name        TEXT PRIMARY KEY,
    mesh        INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    status      TEXT NOT NULL,
    old         INTEGER NOT NULL,     -- 1 = of 2016
    compat      INTEGER NOT NULL,     -- 1 = 2016 clients may administer it
    asked       INTEGER NOT NULL DEFAULT 0,   -- 1 = somebody has ever asked to be connected
    opener      TEXT NOT NULL DEFAULT '',
    opener_key  BLOB NOT NULL DEFAULT x''
) STRICT, WITHOUT ROWID;
INSERT INTO accounts_kept (name, mesh, created, status, old, compat, asked, opener, opener_key)
    SELECT name, mesh, created, status, old, compat, asked, opener, opener_key FROM accounts;
DROP TABLE accounts;
ALTER TABLE accounts_kept RENAME TO accounts;
CREATE UNIQUE INDEX accounts_mesh ON accounts (mesh) WHERE status <> 'Closed';
CREATE INDEX accounts_of ON accounts (mesh);
CREATE INDEX accounts_opener ON accounts (opener) WHERE opener <> '';
