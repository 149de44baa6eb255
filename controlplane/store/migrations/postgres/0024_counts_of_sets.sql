-- Attempts begin, and calls end, many at a time: they are counted once per statement and in one order, so that two statements that count in
-- the same rows wait for each other in no circle.
DROP TRIGGER call_ended ON call;
CREATE FUNCTION count_ended_calls() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO open_calls AS o (org_id, shard, calls)
        SELECT became.org_id, pg_backend_pid() % 64, -count(*) FROM became JOIN was USING (id)
        WHERE was.ended_at IS NULL AND became.ended_at IS NOT NULL GROUP BY became.org_id ORDER BY became.org_id
        ON CONFLICT (org_id, shard) DO UPDATE SET calls = o.calls + excluded.calls;
    RETURN NULL;
END $$;
CREATE TRIGGER calls_ended AFTER UPDATE ON call REFERENCING OLD TABLE AS was NEW TABLE AS became
    FOR EACH STATEMENT EXECUTE FUNCTION count_ended_calls();

DROP TRIGGER attempt_used ON attempt;
DROP FUNCTION count_attempt();
CREATE FUNCTION count_begun_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO org_usage AS u (org_id, day, shard, attempts)
        SELECT begun.org_id, day_of(begun.started_at) AS day, pg_backend_pid() % 64, count(*)
        FROM begun JOIN call ON call.id = begun.call_id WHERE call.mode = 'live'
        GROUP BY begun.org_id, day ORDER BY begun.org_id, day
        ON CONFLICT (org_id, day, shard) DO UPDATE SET attempts = u.attempts + excluded.attempts;
    RETURN NULL;
END $$;
CREATE TRIGGER attempts_begun AFTER INSERT ON attempt REFERENCING NEW TABLE AS begun
    FOR EACH STATEMENT EXECUTE FUNCTION count_begun_attempts();

DROP TRIGGER attempt_talked ON attempt;
DROP FUNCTION count_talk();
DROP FUNCTION count_usage(text, timestamptz, bigint, bigint, bigint);
CREATE FUNCTION count_talk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO org_usage AS u (org_id, day, shard, talk_us)
        SELECT became.org_id, day_of(became.ended_at) AS day, pg_backend_pid() % 64,
            sum((extract(epoch FROM became.ended_at - became.answered_at) * 1000000)::bigint)::bigint
        FROM became JOIN was USING (id) JOIN call ON call.id = became.call_id
        WHERE was.ended_at IS NULL AND became.ended_at > became.answered_at AND call.mode = 'live'
        GROUP BY became.org_id, day ORDER BY became.org_id, day
        ON CONFLICT (org_id, day, shard) DO UPDATE SET talk_us = u.talk_us + excluded.talk_us;
    RETURN NULL;
END $$;
CREATE TRIGGER attempts_talked AFTER UPDATE ON attempt REFERENCING OLD TABLE AS was NEW TABLE AS became
    FOR EACH STATEMENT EXECUTE FUNCTION count_talk();
