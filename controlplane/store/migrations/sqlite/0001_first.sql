-- The first schema, with the columns that later features fill, so that they add and do not rewrite.
--
-- Times are INTEGER microseconds since 1970-01-01T00:00:00Z. Ids are prefixed text. JSON is TEXT.
-- Every table is STRICT. The same tables, column by column, are in ../postgres.

CREATE TABLE org (
    org_id     TEXT    NOT NULL PRIMARY KEY CHECK (org_id LIKE 'org\_%' ESCAPE '\' AND length(org_id) = 30),
    slug       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The organisation of a fleet that needs only one.
INSERT INTO org (org_id, slug, name, created_at) VALUES ('org_00000000000000000000000000', 'default', 'default', 0);

-- A key's secret is never here, only its hash. No organisation: an operator's key.
CREATE TABLE api_key (
    id            TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'key\_%' ESCAPE '\' AND length(id) = 30),
    org_id        TEXT    REFERENCES org (org_id),
    name          TEXT    NOT NULL,
    prefix        TEXT    NOT NULL,
    secret_sha256 BLOB    NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    scopes        TEXT    NOT NULL CHECK (json_valid(scopes)),
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    revoked_at    INTEGER,
    last_used_at  INTEGER
) STRICT;
CREATE INDEX api_key_by_org ON api_key (org_id, id);

-- The declared fleet: always one row, revision 0 until one is applied.
CREATE TABLE declared_fleet (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    revision   INTEGER NOT NULL CHECK (revision >= 0),
    document   TEXT    CHECK (json_valid(document)),
    applied_at INTEGER,
    CHECK (revision = 0 OR (document IS NOT NULL AND applied_at IS NOT NULL))
) STRICT;
INSERT INTO declared_fleet (id, revision) VALUES (1, 0);

-- `lease_*`: which replica drives the call, until when, and the fence that refuses an older owner's late write.
CREATE TABLE call (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'call\_%' ESCAPE '\' AND length(id) = 31),
    org_id      TEXT    NOT NULL REFERENCES org (org_id),
    request     TEXT    NOT NULL CHECK (json_valid(request)),
    dedup_key   TEXT,
    status      TEXT    NOT NULL CHECK (status IN
        ('queued', 'initiated', 'ringing', 'in_progress', 'completed', 'busy', 'no_answer', 'canceled', 'failed')),
    reason      TEXT,
    outcome     TEXT,
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    created_at  INTEGER NOT NULL,
    deadline_at INTEGER NOT NULL,
    cancel_requested_at INTEGER,
    ended_at    INTEGER,
    lease_owner TEXT,
    lease_epoch INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    CHECK ((status IN ('completed', 'busy', 'no_answer', 'canceled', 'failed')) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (reason IS NULL) AND (ended_at IS NULL) = (outcome IS NULL))
) STRICT;
CREATE INDEX call_by_org ON call (org_id, id DESC);
CREATE INDEX call_open ON call (id) WHERE ended_at IS NULL;
CREATE INDEX call_lease ON call (lease_until) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX call_open_dedup_key ON call (org_id, dedup_key) WHERE ended_at IS NULL AND dedup_key IS NOT NULL;

CREATE TABLE attempt (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'att\_%' ESCAPE '\' AND length(id) = 30),
    org_id      TEXT    NOT NULL REFERENCES org (org_id),
    call_id     TEXT    NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    ordinal     INTEGER NOT NULL CHECK (ordinal >= 1),
    node        TEXT    NOT NULL,
    trunk       TEXT    NOT NULL,
    carrier     TEXT    NOT NULL,
    status      TEXT    NOT NULL CHECK (status IN ('sending', 'initiated', 'ringing', 'in_progress', 'ended')),
    ending      TEXT,
    sip_code    INTEGER CHECK (sip_code BETWEEN 0 AND 999),
    q850        INTEGER CHECK (q850 BETWEEN 0 AND 255),
    rang        TEXT    NOT NULL CHECK (rang IN ('yes', 'no', 'maybe')),
    incarnation TEXT,
    started_at  INTEGER NOT NULL,
    ringing_at  INTEGER,
    answered_at INTEGER,
    ended_at    INTEGER,
    UNIQUE (call_id, ordinal),
    CHECK ((status = 'ended') = (ended_at IS NOT NULL) AND (status = 'ended') = (ending IS NOT NULL))
) STRICT;
-- Two attempts of one call at a time would ring a phone twice.
CREATE UNIQUE INDEX attempt_open ON attempt (call_id) WHERE ended_at IS NULL;

-- What happened to a call, in order and without gaps.
CREATE TABLE call_transition (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'evt\_%' ESCAPE '\' AND length(id) = 30),
    org_id      TEXT    NOT NULL REFERENCES org (org_id),
    call_id     TEXT    NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    status      TEXT    NOT NULL,
    reason      TEXT,
    attempt_id  TEXT    REFERENCES attempt (id),
    ending      TEXT,
    occurred_at INTEGER NOT NULL,
    UNIQUE (call_id, sequence)
) STRICT;

-- `expires_at` is empty while the call is open; from its end on it is set, and the key is free again after it.
CREATE TABLE idempotency (
    org_id      TEXT    NOT NULL REFERENCES org (org_id),
    key         TEXT    NOT NULL,
    body_sha256 BLOB    NOT NULL CHECK (length(body_sha256) = 32),
    call_id     TEXT    NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    PRIMARY KEY (org_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_call ON idempotency (call_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at) WHERE expires_at IS NOT NULL;

-- Events on their way out. `id` is the transition's; an endpoint that saw it knows it again.
CREATE TABLE outbox (
    id           TEXT    NOT NULL PRIMARY KEY,
    org_id       TEXT    NOT NULL REFERENCES org (org_id),
    call_id      TEXT    NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    sequence     INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    tries        INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER,
    lease_owner  TEXT,
    lease_epoch  INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER
) STRICT;
CREATE INDEX outbox_due ON outbox (due_at) WHERE delivered_at IS NULL;
CREATE INDEX outbox_by_call ON outbox (call_id, sequence);

-- Who did what. `chain`, `seq`, `prev_hash` and `hash` are empty until the sealer fills them.
CREATE TABLE audit_log (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'aud\_%' ESCAPE '\' AND length(id) = 30),
    chain       TEXT,
    seq         INTEGER,
    org_id      TEXT,
    occurred_at INTEGER NOT NULL,
    actor_type  TEXT    NOT NULL CHECK (actor_type IN ('customer', 'operator', 'agent', 'system')),
    actor_id    TEXT,
    key_prefix  TEXT,
    auth_method TEXT,
    action      TEXT    NOT NULL,
    target_type TEXT    NOT NULL,
    target_id   TEXT    NOT NULL,
    outcome     TEXT    NOT NULL CHECK (outcome IN ('success', 'denied', 'failure')),
    reason      TEXT,
    ip          TEXT,
    user_agent  TEXT,
    request_id  TEXT,
    changes     TEXT    NOT NULL CHECK (json_valid(changes)),
    prev_hash   BLOB,
    hash        BLOB,
    UNIQUE (chain, seq)
) STRICT;
CREATE INDEX audit_log_by_time ON audit_log (occurred_at);
CREATE INDEX audit_log_by_org ON audit_log (org_id, occurred_at);
CREATE INDEX audit_log_unsealed ON audit_log (id) WHERE hash IS NULL;

-- Retention's key to the lock below: it sets `erase_before`, erases, and empties it, in one transaction.
CREATE TABLE audit_retention (
    id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    erase_before INTEGER
) STRICT;
INSERT INTO audit_retention (id) VALUES (1);

CREATE TRIGGER audit_log_only_sealed BEFORE UPDATE ON audit_log
WHEN OLD.hash IS NOT NULL
    OR (OLD.id, OLD.occurred_at, OLD.actor_type, OLD.action, OLD.target_type, OLD.target_id, OLD.outcome, OLD.changes)
       IS NOT
       (NEW.id, NEW.occurred_at, NEW.actor_type, NEW.action, NEW.target_type, NEW.target_id, NEW.outcome, NEW.changes)
    OR (OLD.org_id, OLD.actor_id, OLD.key_prefix, OLD.auth_method, OLD.reason, OLD.ip, OLD.user_agent, OLD.request_id)
       IS NOT
       (NEW.org_id, NEW.actor_id, NEW.key_prefix, NEW.auth_method, NEW.reason, NEW.ip, NEW.user_agent, NEW.request_id)
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

CREATE TRIGGER audit_log_not_deleted BEFORE DELETE ON audit_log
WHEN (SELECT erase_before FROM audit_retention WHERE id = 1) IS NULL
    OR OLD.occurred_at >= (SELECT erase_before FROM audit_retention WHERE id = 1)
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;
