-- The first schema, with the columns that later features fill, so that they add and do not rewrite.
--
-- Ids are prefixed text in the byte order of collation C, since they are cursors.
-- The same tables, column by column, are in ../sqlite.

CREATE TABLE org (
    org_id     text COLLATE "C" NOT NULL PRIMARY KEY CHECK (org_id LIKE 'org\_%' AND length(org_id) = 30),
    slug       text NOT NULL UNIQUE,
    name       text NOT NULL,
    created_at timestamptz NOT NULL
);

-- The organisation of a fleet that needs only one.
INSERT INTO org (org_id, slug, name, created_at) VALUES ('org_00000000000000000000000000', 'default', 'default', 'epoch');

-- A key's secret is never here, only its hash. No organisation: an operator's key.
CREATE TABLE api_key (
    id            text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'key\_%' AND length(id) = 30),
    org_id        text COLLATE "C" REFERENCES org (org_id),
    name          text NOT NULL,
    prefix        text NOT NULL,
    secret_sha256 bytea NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    scopes        jsonb NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz
);
CREATE INDEX api_key_by_org ON api_key (org_id, id);

-- The declared fleet: always one row, revision 0 until one is applied.
CREATE TABLE declared_fleet (
    id         integer NOT NULL PRIMARY KEY CHECK (id = 1),
    revision   bigint NOT NULL CHECK (revision >= 0),
    document   jsonb,
    applied_at timestamptz,
    CHECK (revision = 0 OR (document IS NOT NULL AND applied_at IS NOT NULL))
);
INSERT INTO declared_fleet (id, revision) VALUES (1, 0);

-- `lease_*`: which replica drives the call, until when, and the fence that refuses an older owner's late write.
CREATE TABLE call (
    id          text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'call\_%' AND length(id) = 31),
    org_id      text COLLATE "C" NOT NULL REFERENCES org (org_id),
    request     jsonb NOT NULL,
    dedup_key   text,
    status      text NOT NULL CHECK (status IN
        ('queued', 'initiated', 'ringing', 'in_progress', 'completed', 'busy', 'no_answer', 'canceled', 'failed')),
    reason      text,
    outcome     text,
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    created_at  timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    ended_at    timestamptz,
    lease_owner text,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    CHECK ((status IN ('completed', 'busy', 'no_answer', 'canceled', 'failed')) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (reason IS NULL) AND (ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX call_by_org ON call (org_id, id DESC);
CREATE INDEX call_open ON call (id) WHERE ended_at IS NULL;
CREATE INDEX call_lease ON call (lease_until) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX call_open_dedup_key ON call (org_id, dedup_key) WHERE ended_at IS NULL AND dedup_key IS NOT NULL;

CREATE TABLE attempt (
    id          text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'att\_%' AND length(id) = 30),
    org_id      text COLLATE "C" NOT NULL REFERENCES org (org_id),
    call_id     text COLLATE "C" NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    ordinal     integer NOT NULL CHECK (ordinal >= 1),
    node        text NOT NULL,
    trunk       text NOT NULL,
    carrier     text NOT NULL,
    status      text NOT NULL CHECK (status IN ('sending', 'initiated', 'ringing', 'in_progress', 'ended')),
    ending      text,
    sip_code    integer CHECK (sip_code BETWEEN 0 AND 999),
    q850        integer CHECK (q850 BETWEEN 0 AND 255),
    rang        text NOT NULL CHECK (rang IN ('yes', 'no', 'maybe')),
    incarnation text,
    started_at  timestamptz NOT NULL,
    ringing_at  timestamptz,
    answered_at timestamptz,
    ended_at    timestamptz,
    UNIQUE (call_id, ordinal),
    CHECK ((status = 'ended') = (ended_at IS NOT NULL) AND (status = 'ended') = (ending IS NOT NULL))
);
-- Two attempts of one call at a time would ring a phone twice.
CREATE UNIQUE INDEX attempt_open ON attempt (call_id) WHERE ended_at IS NULL;

-- What happened to a call, in order and without gaps.
CREATE TABLE call_transition (
    id          text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'evt\_%' AND length(id) = 30),
    org_id      text COLLATE "C" NOT NULL REFERENCES org (org_id),
    call_id     text COLLATE "C" NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    status      text NOT NULL,
    reason      text,
    attempt_id  text COLLATE "C" REFERENCES attempt (id),
    ending      text,
    occurred_at timestamptz NOT NULL,
    UNIQUE (call_id, sequence)
);

-- `expires_at` is empty while the call is open; from its end on it is set, and the key is free again after it.
CREATE TABLE idempotency (
    org_id      text COLLATE "C" NOT NULL REFERENCES org (org_id),
    key         text NOT NULL,
    body_sha256 bytea NOT NULL CHECK (length(body_sha256) = 32),
    call_id     text COLLATE "C" NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    PRIMARY KEY (org_id, key)
);
CREATE INDEX idempotency_by_call ON idempotency (call_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at) WHERE expires_at IS NOT NULL;

-- Events on their way out. `id` is the transition's; an endpoint that saw it knows it again.
CREATE TABLE outbox (
    id           text COLLATE "C" NOT NULL PRIMARY KEY,
    org_id       text COLLATE "C" NOT NULL REFERENCES org (org_id),
    call_id      text COLLATE "C" NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    sequence     bigint NOT NULL,
    kind         text NOT NULL,
    created_at   timestamptz NOT NULL,
    due_at       timestamptz NOT NULL,
    tries        integer NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    lease_owner  text,
    lease_epoch  bigint NOT NULL DEFAULT 0,
    lease_until  timestamptz
);
CREATE INDEX outbox_due ON outbox (due_at) WHERE delivered_at IS NULL;
CREATE INDEX outbox_by_call ON outbox (call_id, sequence);

-- Who did what. `chain`, `seq`, `prev_hash` and `hash` are empty until the sealer fills them.
CREATE TABLE audit_log (
    id          text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'aud\_%' AND length(id) = 30),
    chain       text,
    seq         bigint,
    org_id      text COLLATE "C",
    occurred_at timestamptz NOT NULL,
    actor_type  text NOT NULL CHECK (actor_type IN ('customer', 'operator', 'agent', 'system')),
    actor_id    text COLLATE "C",
    key_prefix  text,
    auth_method text,
    action      text NOT NULL,
    target_type text NOT NULL,
    target_id   text COLLATE "C" NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('success', 'denied', 'failure')),
    reason      text,
    ip          text,
    user_agent  text,
    request_id  text COLLATE "C",
    changes     jsonb NOT NULL,
    prev_hash   bytea,
    hash        bytea,
    UNIQUE (chain, seq)
);
CREATE INDEX audit_log_by_time ON audit_log (occurred_at);
CREATE INDEX audit_log_by_org ON audit_log (org_id, occurred_at);
CREATE INDEX audit_log_unsealed ON audit_log (id) WHERE hash IS NULL;

-- Retention's key to the lock below: it sets `erase_before`, erases, and empties it, in one transaction.
CREATE TABLE audit_retention (
    id           integer NOT NULL PRIMARY KEY CHECK (id = 1),
    erase_before timestamptz
);
INSERT INTO audit_retention (id) VALUES (1);

CREATE FUNCTION audit_log_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.hash IS NULL
        AND (to_jsonb(OLD) - '{chain,seq,prev_hash,hash}'::text[]) = (to_jsonb(NEW) - '{chain,seq,prev_hash,hash}'::text[])
    THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' AND OLD.occurred_at < (SELECT erase_before FROM audit_retention WHERE id = 1) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_log is append-only';
END;
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_guard();
CREATE TRIGGER audit_log_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_guard();
