-- The fleet's bans and allowances, and what nodes refuse of them.
-- The same tables, column by column, are in ../sqlite.

-- One row for each net, whatever became of it. `revision`: of its last change; nodes are told what is newer than what
-- they hold. `lift_revision`: of its last lift, kept when it is banned anew, since the new ban may be the shorter one.
CREATE TABLE ban_list (
    kind          text COLLATE "C" NOT NULL CHECK (kind IN ('ban', 'allow')),
    net           text COLLATE "C" NOT NULL,
    origin        text COLLATE "C" NOT NULL,
    author        text COLLATE "C" NOT NULL,
    reason        text COLLATE "C" NOT NULL,
    jail          text,
    evidence      text,
    source        text,
    created_at    timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    lifted_at     timestamptz,
    revision      bigint NOT NULL,
    lift_revision bigint,
    PRIMARY KEY (kind, net),
    CHECK (lifted_at IS NULL OR lift_revision IS NOT NULL)
);
CREATE UNIQUE INDEX ban_list_by_revision ON ban_list (revision);
CREATE INDEX ban_list_by_end ON ban_list (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ban_list_lifted ON ban_list (lifted_at) WHERE lifted_at IS NOT NULL;

-- `list` names this list among all that ever were. `revision`: the last that was given; whoever changes the list changes
-- this row, so that revisions come in the order of commits. `lifts_known_from`: lifts up to it are forgotten.
CREATE TABLE ban_head (
    id               bigint NOT NULL PRIMARY KEY CHECK (id = 1),
    list             text COLLATE "C" NOT NULL,
    revision         bigint NOT NULL,
    lifts_known_from bigint NOT NULL
);
INSERT INTO ban_head (id, list, revision, lifts_known_from) VALUES (1, replace(gen_random_uuid()::text, '-', ''), 0, 0);

-- Which node does not take which ban of the fleet.
CREATE TABLE ban_refusal (
    node       text COLLATE "C" NOT NULL,
    net        text COLLATE "C" NOT NULL,
    reason     text COLLATE "C" NOT NULL,
    refused_at timestamptz NOT NULL,
    PRIMARY KEY (node, net)
);
CREATE INDEX ban_refusal_by_net ON ban_refusal (net);
