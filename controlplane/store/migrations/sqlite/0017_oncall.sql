-- On-call: where customers' alerts come in, and who is phoned about them. The same, column by column, is in ../postgres.

CREATE TABLE hook (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'hook\_%' ESCAPE '\' AND length(id) = 31),
    org_id     TEXT    NOT NULL REFERENCES org (org_id),
    settings   TEXT    NOT NULL CHECK (json_valid(settings)),
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX hook_by_org ON hook (org_id, id);

-- `plan` is the hook as it was when the incident began: it is gone through to its end, whatever becomes of the hook.
-- `version` is the fence: who writes has read the one before.
CREATE TABLE incident (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'inc\_%' ESCAPE '\' AND length(id) = 30),
    org_id          TEXT    NOT NULL REFERENCES org (org_id),
    hook_id         TEXT    NOT NULL,
    mode            TEXT    NOT NULL,
    group_key       TEXT    NOT NULL,
    plan            TEXT    NOT NULL CHECK (json_valid(plan)),
    status          TEXT    NOT NULL,
    phase           TEXT    NOT NULL CHECK (phase IN ('waiting', 'placing', 'calling', 'idle')),
    due_at          INTEGER,
    call_id         TEXT,
    steps           TEXT    NOT NULL CHECK (json_valid(steps)),
    alerts          TEXT    NOT NULL CHECK (json_valid(alerts)),
    alerts_seen     INTEGER NOT NULL,
    opened_by       TEXT,
    opened_at       INTEGER NOT NULL,
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    unanswered_at   INTEGER,
    resolved_at     INTEGER,
    resolved_by     TEXT,
    version         INTEGER NOT NULL,
    CHECK ((phase = 'calling') = (call_id IS NOT NULL)),
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL))
) STRICT;
-- Of one group at most one is open.
CREATE UNIQUE INDEX incident_open ON incident (hook_id, mode, group_key) WHERE resolved_at IS NULL;
CREATE INDEX incident_open_by_org ON incident (org_id) WHERE resolved_at IS NULL;
CREATE INDEX incident_by_org ON incident (org_id, id);
CREATE INDEX incident_working ON incident (due_at) WHERE phase <> 'idle';
CREATE INDEX incident_over ON incident (org_id, resolved_at) WHERE resolved_at IS NOT NULL;
