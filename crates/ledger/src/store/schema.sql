-- The ledger's one file. STRICT everywhere; what must never happen is a CHECK,
-- so that a mistake in the code above is refused here.

CREATE TABLE ledger (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    name    TEXT NOT NULL           -- "ledger:<64 hex>": a file belongs to one key
) STRICT;

-- Balances, derived from `entry` and checked against it at every start.
-- `issued` is the other side of all play money, the only one below zero.
CREATE TABLE account (
    name    TEXT PRIMARY KEY,           -- a CAIP-10 account, "lease:<hex>" or "issued"
    balance INTEGER NOT NULL CHECK (balance >= 0 OR name = 'issued')
) STRICT, WITHOUT ROWID;

CREATE TABLE lease (
    id          BLOB PRIMARY KEY CHECK (length(id) = 32),
    terms       TEXT NOT NULL,          -- as JSON, for restores
    payer       TEXT NOT NULL,
    payee       TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('locked', 'active', 'closed')),
    funded      INTEGER NOT NULL CHECK (funded > 0),
    paid        INTEGER NOT NULL CHECK (paid >= 0),
    accept_by   INTEGER NOT NULL,       -- unix milliseconds, as all times here
    expiry      INTEGER NOT NULL,
    close_asked INTEGER,
    CHECK (paid <= funded),
    CHECK (state <> 'locked' OR paid = 0)
) STRICT, WITHOUT ROWID;
-- Closed locks stay for ever; what is asked of a payer never walks over them.
CREATE INDEX lease_open ON lease (payer) WHERE state <> 'closed';

-- How often each payer began, topped up or extended a lock in the newest hour it did so in.
CREATE TABLE begun (
    payer TEXT PRIMARY KEY,
    hour  INTEGER NOT NULL,
    locks INTEGER NOT NULL CHECK (locks > 0)
) STRICT, WITHOUT ROWID;

-- From when on a redemption of that lock and size has to wait for none before it. What is past is swept.
CREATE TABLE redeemed (
    lease     BLOB NOT NULL CHECK (length(lease) = 32),
    size      INTEGER NOT NULL CHECK (size >= 0),
    free_from INTEGER NOT NULL,
    PRIMARY KEY (lease, size)
) STRICT, WITHOUT ROWID;
CREATE INDEX redeemed_free ON redeemed (free_from);

-- The journal: append-only, each entry's hash over the one before it.
CREATE TABLE entry (
    sequence    INTEGER PRIMARY KEY CHECK (sequence > 0),
    time        INTEGER NOT NULL,
    operation   BLOB NOT NULL UNIQUE CHECK (length(operation) = 32),
    instruction TEXT NOT NULL,          -- the exact signed instruction
    debit       TEXT NOT NULL,          -- what it left
    credit      TEXT NOT NULL,          -- where it arrived
    amount      INTEGER NOT NULL CHECK (amount >= 0),
    previous    BLOB NOT NULL UNIQUE CHECK (length(previous) = 32),
    hash        BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    CHECK (debit <> credit)
) STRICT;

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER entry_is_never_removed BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
