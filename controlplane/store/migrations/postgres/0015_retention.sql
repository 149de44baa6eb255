-- Retention of each organisation. The same is in ../sqlite.

ALTER TABLE customer_rule DROP CONSTRAINT customer_rule_kind_check;
ALTER TABLE customer_rule ADD CONSTRAINT customer_rule_kind_check CHECK (kind IN ('policy', 'limits', 'retention'));

-- What is old is looked for by organisation.
DROP INDEX call_by_end;
DROP INDEX call_numbers_by_end;
DROP INDEX call_texts_by_end;
CREATE INDEX call_by_end ON call (org_id, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX call_numbers_by_end ON call (org_id, ended_at) WHERE ended_at IS NOT NULL AND number_erased_at IS NULL;
CREATE INDEX call_texts_by_end ON call (org_id, ended_at) WHERE ended_at IS NOT NULL AND text_erased_at IS NULL;
