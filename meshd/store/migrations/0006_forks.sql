-- Whether a fork was healed is kept beside it, so that no look at the alarms walks a chain.

ALTER TABLE forks ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;   -- 1 = a later version of the signer follows both
UPDATE forks SET joined = 1
    WHERE grown = 0 AND (SELECT count(*) FROM tips t WHERE t.signer = forks.signer) <= 1;
