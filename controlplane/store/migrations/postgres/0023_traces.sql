-- A call's place in a trace that is followed. Its spans are made of the rows of the call once that has ended.
CREATE TABLE trace (
    call_id   text  NOT NULL PRIMARY KEY REFERENCES call (id) ON DELETE CASCADE,
    trace_id  bytea NOT NULL CHECK (length(trace_id) = 16),
    parent_id bytea CHECK (length(parent_id) = 8),
    state     text  CHECK (length(state) <= 512),
    sent_at   timestamptz
);
CREATE INDEX trace_unsent ON trace (call_id) WHERE sent_at IS NULL;
