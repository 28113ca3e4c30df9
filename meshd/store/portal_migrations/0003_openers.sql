-- Who proved to be an administrator of a mesh of which the portal does not hold the profiles that list him: his
-- authentication key, by which he brings them.
ALTER TABLE accounts ADD COLUMN opener TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN opener_key BLOB NOT NULL DEFAULT x'';
CREATE INDEX accounts_opener ON accounts (opener) WHERE opener <> '';
