-- A file of the second version becomes one of the third; what was booked is not touched.
CREATE TABLE redeemed (
    lease     BLOB NOT NULL CHECK (length(lease) = 32),
    size      INTEGER NOT NULL CHECK (size >= 0),
    free_from INTEGER NOT NULL,
    PRIMARY KEY (lease, size)
) STRICT, WITHOUT ROWID;
CREATE INDEX redeemed_free ON redeemed (free_from);
UPDATE ledger SET version = 3;
