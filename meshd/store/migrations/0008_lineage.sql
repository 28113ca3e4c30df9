-- Links of chains that came ahead of their versions: what a removal leaves standing is known before it comes.

CREATE TABLE lineage (                -- a version that is not here yet, and is proven to be on its signer's chain
    signer      TEXT NOT NULL,
    vid         BLOB NOT NULL,
    token       TEXT NOT NULL,        -- NotaryToken; with digest it proves the vid, as in versions
    digest      BLOB NOT NULL
) STRICT;
-- No index: the vids are random, a chain comes by thousands, and its rows go when the last of its versions is here.
