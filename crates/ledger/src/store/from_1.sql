-- A file of the first version becomes one of the second; what was booked is not touched.
DROP INDEX lease_by_payer;
CREATE INDEX lease_open ON lease (payer) WHERE state <> 'closed';
CREATE TABLE begun (
    payer TEXT PRIMARY KEY,
    hour  INTEGER NOT NULL,
    locks INTEGER NOT NULL CHECK (locks > 0)
) STRICT, WITHOUT ROWID;
UPDATE ledger SET version = 2;
