-- What operators allow customers, and what customers have used of it. The same is in ../sqlite.

-- `subject`: an organisation, or a key with limits of its own. `document`: the policy or the limits, as they are set.
CREATE TABLE customer_rule (
    subject    text COLLATE "C" NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('policy', 'limits')),
    document   jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (subject, kind)
);

-- Per day (UTC, counted from 1970-01-01) what an organisation has used. Kept by triggers, so that no write forgets it.
-- A rehearsal uses nothing. All shards of a day together are the figure; a session has its own, mostly, as in open_calls.
CREATE TABLE org_usage (
    org_id   text COLLATE "C" NOT NULL REFERENCES org (org_id),
    day      bigint NOT NULL,
    shard    integer NOT NULL,
    calls    bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    talk_us  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, day, shard)
) WITH (fillfactor = 50);

CREATE FUNCTION day_of(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$ SELECT floor(extract(epoch FROM moment) / 86400)::bigint $$;

CREATE FUNCTION count_usage(org text, moment timestamptz, calls_ bigint, attempts_ bigint, talk bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO org_usage AS u (org_id, day, shard, calls, attempts, talk_us)
        VALUES (org, day_of(moment), pg_backend_pid() % 64, calls_, attempts_, talk)
        ON CONFLICT (org_id, day, shard) DO UPDATE SET calls = u.calls + excluded.calls,
            attempts = u.attempts + excluded.attempts, talk_us = u.talk_us + excluded.talk_us
$$;

CREATE FUNCTION count_call() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM count_usage(NEW.org_id, NEW.created_at, 1, 0, 0);
    RETURN NULL;
END $$;
CREATE TRIGGER call_used AFTER INSERT ON call FOR EACH ROW
    WHEN (NEW.mode = 'live') EXECUTE FUNCTION count_call();

CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT mode FROM call WHERE id = NEW.call_id) = 'live' THEN
        PERFORM count_usage(NEW.org_id, NEW.started_at, 0, 1, 0);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_used AFTER INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION count_attempt();

CREATE FUNCTION count_talk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT mode FROM call WHERE id = NEW.call_id) = 'live' THEN
        PERFORM count_usage(NEW.org_id, NEW.ended_at, 0, 0,
            (extract(epoch FROM NEW.ended_at - NEW.answered_at) * 1000000)::bigint);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_talked AFTER UPDATE OF ended_at ON attempt FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at > NEW.answered_at) EXECUTE FUNCTION count_talk();

-- The same of a key: calls that it asked for. Written by the transaction that accepts.
CREATE TABLE key_usage (
    key_id text COLLATE "C" NOT NULL,
    day    bigint NOT NULL,
    shard  integer NOT NULL,
    calls  bigint NOT NULL,
    PRIMARY KEY (key_id, day, shard)
) WITH (fillfactor = 50);
