-- The portals of this mesh, and how far each and this store are in step.

CREATE TABLE portals (
    account     TEXT PRIMARY KEY,
    address     TEXT NOT NULL DEFAULT '',     -- host:port given by hand; '' = DNS tells
    plain       INTEGER NOT NULL DEFAULT 0,   -- 1 = without TLS, as a person chose
    item        TEXT NOT NULL DEFAULT '',     -- where the mesh says it (an item of the Discovery vault); '' = not seen yet
    moved       TEXT NOT NULL DEFAULT '',     -- URI that the portal said it had moved to for good
    page_key    TEXT NOT NULL DEFAULT '',     -- how far its feed was followed; '' = from its beginning
    store_id    BLOB,                         -- the numbering that the cursor counts in
    cursor      INTEGER NOT NULL DEFAULT 0,   -- it holds everything of ours up to this seq, but for what stands in outbox
    last_success INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE portal_answers (                 -- signed answers to devices that asked to join, not delivered yet
    account     TEXT NOT NULL,
    device      TEXT NOT NULL,
    answer      TEXT NOT NULL,
    PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;
