-- The audit log's chain: its end, what retention erased, and a lock that no way leads around. And what retention takes
-- out of calls.
-- The same tables, column by column, are in ../postgres.

-- The last number given and its hash; `lease_*`: which process numbers and erases, and until when.
CREATE TABLE audit_chain (
    chain       TEXT    NOT NULL PRIMARY KEY,
    seq         INTEGER NOT NULL CHECK (seq >= 0),
    hash        BLOB    NOT NULL CHECK (length(hash) = 32),
    sealed_at   INTEGER,
    lease_owner TEXT,
    lease_until INTEGER
) STRICT;
INSERT INTO audit_chain (chain, seq, hash) VALUES ('main', 0, zeroblob(32));

-- Rows that were erased, one after the other, signed with a key that is not in the database.
CREATE TABLE audit_checkpoint (
    chain     TEXT    NOT NULL,
    from_seq  INTEGER NOT NULL,
    to_seq    INTEGER NOT NULL,
    prev_hash BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    before    INTEGER NOT NULL,
    key       BLOB    NOT NULL,
    signature BLOB    NOT NULL,
    PRIMARY KEY (chain, from_seq),
    CHECK (from_seq <= to_seq)
) STRICT;

-- Lists go by moment and id.
DROP INDEX audit_log_by_time;
DROP INDEX audit_log_by_org;
CREATE INDEX audit_log_by_time ON audit_log (occurred_at, id);
CREATE INDEX audit_log_by_org ON audit_log (org_id, occurred_at, id);

-- REPLACE deletes without asking the trigger for deletions; and nobody writes a row that is sealed already.
CREATE TRIGGER audit_log_not_replaced BEFORE INSERT ON audit_log
WHEN NEW.chain IS NOT NULL OR NEW.seq IS NOT NULL OR NEW.prev_hash IS NOT NULL OR NEW.hash IS NOT NULL
    OR EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

-- What is erased is old, sealed, and in a checkpoint.
DROP TRIGGER audit_log_not_deleted;
CREATE TRIGGER audit_log_not_deleted BEFORE DELETE ON audit_log
WHEN (SELECT erase_before FROM audit_retention WHERE id = 1) IS NULL
    OR OLD.occurred_at >= (SELECT erase_before FROM audit_retention WHERE id = 1)
    OR NOT EXISTS (SELECT 1 FROM audit_checkpoint
                   WHERE chain = OLD.chain AND from_seq <= OLD.seq AND to_seq >= OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

-- What was taken out of a call that stays. Retention finds what is left to take by these, and what an attempt's erasure
-- has to look at.
ALTER TABLE call ADD COLUMN number_erased_at INTEGER;
ALTER TABLE call ADD COLUMN text_erased_at INTEGER;
CREATE INDEX call_by_end ON call (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX call_numbers_by_end ON call (ended_at) WHERE ended_at IS NOT NULL AND number_erased_at IS NULL;
CREATE INDEX call_texts_by_end ON call (ended_at) WHERE ended_at IS NOT NULL AND text_erased_at IS NULL;
CREATE INDEX call_transition_by_attempt ON call_transition (attempt_id) WHERE attempt_id IS NOT NULL;
