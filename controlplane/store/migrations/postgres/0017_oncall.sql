-- On-call: where customers' alerts come in, and who is phoned about them. The same, column by column, is in ../sqlite.

CREATE TABLE hook (
    id         text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'hook\_%' AND length(id) = 31),
    org_id     text COLLATE "C" NOT NULL REFERENCES org (org_id),
    settings   jsonb            NOT NULL,
    created_at timestamptz      NOT NULL
);
CREATE INDEX hook_by_org ON hook (org_id, id);

-- `plan` is the hook as it was when the incident began: it is gone through to its end, whatever becomes of the hook.
-- `version` is the fence: who writes has read the one before.
CREATE TABLE incident (
    id              text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'inc\_%' AND length(id) = 30),
    org_id          text COLLATE "C" NOT NULL REFERENCES org (org_id),
    hook_id         text COLLATE "C" NOT NULL,
    mode            text             NOT NULL,
    group_key       text COLLATE "C" NOT NULL,
    plan            jsonb            NOT NULL,
    status          text             NOT NULL,
    phase           text             NOT NULL CHECK (phase IN ('waiting', 'placing', 'calling', 'idle')),
    due_at          timestamptz,
    call_id         text COLLATE "C",
    steps           jsonb            NOT NULL,
    alerts          jsonb            NOT NULL,
    alerts_seen     bigint           NOT NULL,
    opened_by       text COLLATE "C",
    opened_at       timestamptz      NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_by text,
    unanswered_at   timestamptz,
    resolved_at     timestamptz,
    resolved_by     text,
    version         bigint           NOT NULL,
    CHECK ((phase = 'calling') = (call_id IS NOT NULL)),
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL))
);
-- Of one group at most one is open.
CREATE UNIQUE INDEX incident_open ON incident (hook_id, mode, group_key) WHERE resolved_at IS NULL;
CREATE INDEX incident_open_by_org ON incident (org_id) WHERE resolved_at IS NULL;
CREATE INDEX incident_by_org ON incident (org_id, id);
CREATE INDEX incident_working ON incident (due_at) WHERE phase <> 'idle';
CREATE INDEX incident_over ON incident (org_id, resolved_at) WHERE resolved_at IS NOT NULL;
