-- What strangers are shown of the past: by day, so that it outlives calls and machines. The same, column by column, is in
-- ../postgres.

-- Days (UTC) are counted from 1970-01-01. `up_ms`, `down_ms`: how long calls could be sent from the region, and could not.
CREATE TABLE status_region_day (
    region  TEXT    NOT NULL,
    day     INTEGER NOT NULL,
    up_ms   INTEGER NOT NULL,
    down_ms INTEGER NOT NULL,
    PRIMARY KEY (region, day)
) STRICT, WITHOUT ROWID;

-- Calls by the day of their end. `missed`: the fleet failed them. Neither: what the caller or the callee decided.
CREATE TABLE status_calls_day (
    day    INTEGER NOT NULL PRIMARY KEY,
    served INTEGER NOT NULL,
    missed INTEGER NOT NULL
) STRICT;

-- Up to when both are told. Whoever adds has read it, so that two processes tell of no moment twice.
CREATE TABLE status_told (
    id            INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    regions_until INTEGER,
    calls_until   INTEGER
) STRICT;
INSERT INTO status_told (id) VALUES (1);

-- What operators say to everybody. `updates`: [{"at", "text"}], oldest first.
CREATE TABLE status_notice (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'ntc\_%' ESCAPE '\' AND length(id) = 30),
    title      TEXT    NOT NULL,
    updates    TEXT    NOT NULL CHECK (json_valid(updates)),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER
) STRICT;
CREATE INDEX status_notice_by_end ON status_notice (ended_at);
