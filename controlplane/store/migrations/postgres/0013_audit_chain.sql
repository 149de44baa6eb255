-- The audit log's chain: its end, what retention erased, and a lock that no way leads around. And what retention takes
-- out of calls.
-- The same tables, column by column, are in ../sqlite.

-- The last number given and its hash; `lease_*`: which process numbers and erases, and until when.
CREATE TABLE audit_chain (
    chain       text   NOT NULL PRIMARY KEY,
    seq         bigint NOT NULL CHECK (seq >= 0),
    hash        bytea  NOT NULL CHECK (length(hash) = 32),
    sealed_at   timestamptz,
    lease_owner text,
    lease_until timestamptz
);
INSERT INTO audit_chain (chain, seq, hash) VALUES ('main', 0, decode(repeat('00', 32), 'hex'));

-- Rows that were erased, one after the other, signed with a key that is not in the database.
CREATE TABLE audit_checkpoint (
    chain     text        NOT NULL,
    from_seq  bigint      NOT NULL,
    to_seq    bigint      NOT NULL,
    prev_hash bytea       NOT NULL CHECK (length(prev_hash) = 32),
    hash      bytea       NOT NULL CHECK (length(hash) = 32),
    before    timestamptz NOT NULL,
    key       bytea       NOT NULL,
    signature bytea       NOT NULL,
    PRIMARY KEY (chain, from_seq),
    CHECK (from_seq <= to_seq)
);

-- Lists go by moment and id.
DROP INDEX audit_log_by_time;
DROP INDEX audit_log_by_org;
CREATE INDEX audit_log_by_time ON audit_log (occurred_at, id);
CREATE INDEX audit_log_by_org ON audit_log (org_id, occurred_at, id);

-- What is erased is old, sealed, and in a checkpoint; and nobody writes a row that is sealed already.
CREATE OR REPLACE FUNCTION audit_log_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.chain IS NULL AND NEW.seq IS NULL AND NEW.prev_hash IS NULL AND NEW.hash IS NULL THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.hash IS NULL
        AND (to_jsonb(OLD) - '{chain,seq,prev_hash,hash}'::text[]) = (to_jsonb(NEW) - '{chain,seq,prev_hash,hash}'::text[])
    THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' AND OLD.occurred_at < (SELECT erase_before FROM audit_retention WHERE id = 1)
        AND EXISTS (SELECT 1 FROM audit_checkpoint
                    WHERE chain = OLD.chain AND from_seq <= OLD.seq AND to_seq >= OLD.seq)
    THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_log is append-only';
END;
$$;
CREATE TRIGGER audit_log_unsealed_only BEFORE INSERT ON audit_log
    FOR EACH ROW WHEN (NEW.chain IS NOT NULL OR NEW.seq IS NOT NULL OR NEW.prev_hash IS NOT NULL OR NEW.hash IS NOT NULL)
    EXECUTE FUNCTION audit_log_guard();

-- The only way out. Runs as the tables' owner, and nobody else may run it without being named: where the service has a
-- role of its own, that role needs neither DELETE on audit_log nor UPDATE on audit_retention (docs/runbooks/audit.md).
CREATE FUNCTION audit_erase(of_chain text, first_seq bigint, last_seq bigint, erase_until timestamptz)
    RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    erased bigint;
BEGIN
    UPDATE audit_retention SET erase_before = erase_until WHERE id = 1;
    DELETE FROM audit_log WHERE chain = of_chain AND seq BETWEEN first_seq AND last_seq;
    GET DIAGNOSTICS erased = ROW_COUNT;
    UPDATE audit_retention SET erase_before = NULL WHERE id = 1;
    RETURN erased;
END;
$$;
REVOKE ALL ON FUNCTION audit_erase(text, bigint, bigint, timestamptz) FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION audit_erase(text, bigint, bigint, timestamptz) SET search_path = %I, pg_temp', current_schema());
END;
$$;

-- What was taken out of a call that stays. Retention finds what is left to take by these, and what an attempt's erasure
-- has to look at.
ALTER TABLE call ADD COLUMN number_erased_at timestamptz;
ALTER TABLE call ADD COLUMN text_erased_at timestamptz;
CREATE INDEX call_by_end ON call (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX call_numbers_by_end ON call (ended_at) WHERE ended_at IS NOT NULL AND number_erased_at IS NULL;
CREATE INDEX call_texts_by_end ON call (ended_at) WHERE ended_at IS NOT NULL AND text_erased_at IS NULL;
CREATE INDEX call_transition_by_attempt ON call_transition (attempt_id) WHERE attempt_id IS NOT NULL;
