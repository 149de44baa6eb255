-- What strangers are shown of the past: by day, so that it outlives calls and machines. The same, column by column, is in
-- ../sqlite.

-- Days (UTC) are counted from 1970-01-01. `up_ms`, `down_ms`: how long calls could be sent from the region, and could not.
CREATE TABLE status_region_day (
    region  text COLLATE "C" NOT NULL,
    day     bigint           NOT NULL,
    up_ms   bigint           NOT NULL,
    down_ms bigint           NOT NULL,
    PRIMARY KEY (region, day)
);

-- Calls by the day of their end. `missed`: the fleet failed them. Neither: what the caller or the callee decided.
CREATE TABLE status_calls_day (
    day    bigint NOT NULL PRIMARY KEY,
    served bigint NOT NULL,
    missed bigint NOT NULL
);

-- Up to when both are told. Whoever adds has read it, so that two processes tell of no moment twice.
CREATE TABLE status_told (
    id            integer NOT NULL PRIMARY KEY CHECK (id = 1),
    regions_until timestamptz,
    calls_until   timestamptz
);
INSERT INTO status_told (id) VALUES (1);

-- What operators say to everybody. `updates`: [{"at", "text"}], oldest first.
CREATE TABLE status_notice (
    id         text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'ntc\_%' AND length(id) = 30),
    title      text             NOT NULL,
    updates    jsonb            NOT NULL,
    started_at timestamptz      NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX status_notice_by_end ON status_notice (ended_at);
