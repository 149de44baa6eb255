-- Operators who have signed in to the console. The same, column by column, is in ../postgres.

-- Only the hash of what the browser holds is kept. A session is worth nothing once its key is revoked or over: that is
-- looked at with every request, so that nothing here has to be ended with the key.
CREATE TABLE console_session (
    token_sha256 BLOB    NOT NULL PRIMARY KEY CHECK (length(token_sha256) = 32),
    key_id       TEXT    NOT NULL REFERENCES api_key (id),
    created_at   INTEGER NOT NULL,
    -- About when it was used last: written once a minute at most.
    seen_at      INTEGER NOT NULL,
    ends_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX console_session_of_key ON console_session (key_id, created_at);
