-- Retention of each organisation. The same is in ../postgres.

-- SQLite cannot change a CHECK: the table is written anew. Nothing refers to it.
CREATE TABLE customer_rule_new (
    subject    TEXT    NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('policy', 'limits', 'retention')),
    document   TEXT    NOT NULL CHECK (json_valid(document)),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (subject, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO customer_rule_new (subject, kind, document, updated_at)
SELECT subject, kind, document, updated_at FROM customer_rule;
DROP TABLE customer_rule;
ALTER TABLE customer_rule_new RENAME TO customer_rule;

-- What is old is looked for by organisation.
DROP INDEX call_by_end;
DROP INDEX call_numbers_by_end;
DROP INDEX call_texts_by_end;
CREATE INDEX call_by_end ON call (org_id, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX call_numbers_by_end ON call (org_id, ended_at) WHERE ended_at IS NOT NULL AND number_erased_at IS NULL;
CREATE INDEX call_texts_by_end ON call (org_id, ended_at) WHERE ended_at IS NOT NULL AND text_erased_at IS NULL;
