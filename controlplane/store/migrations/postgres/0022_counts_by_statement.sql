-- Calls are accepted many at a time: they are counted once per statement, not once per row, each of which found the version
-- that the last one left by going through all before it.
DROP TRIGGER call_opened ON call;
DROP TRIGGER call_used ON call;
DROP FUNCTION count_call();

CREATE FUNCTION count_accepted_calls() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO open_calls AS o (org_id, shard, calls)
        SELECT org_id, pg_backend_pid() % 64, count(*) FROM accepted WHERE ended_at IS NULL GROUP BY org_id ORDER BY org_id
        ON CONFLICT (org_id, shard) DO UPDATE SET calls = o.calls + excluded.calls;
    INSERT INTO org_usage AS u (org_id, day, shard, calls)
        SELECT org_id, day_of(created_at) AS day, pg_backend_pid() % 64, count(*) FROM accepted WHERE mode = 'live'
        GROUP BY org_id, day ORDER BY org_id, day
        ON CONFLICT (org_id, day, shard) DO UPDATE SET calls = u.calls + excluded.calls;
    RETURN NULL;
END $$;
CREATE TRIGGER calls_accepted AFTER INSERT ON call REFERENCING NEW TABLE AS accepted
    FOR EACH STATEMENT EXECUTE FUNCTION count_accepted_calls();
