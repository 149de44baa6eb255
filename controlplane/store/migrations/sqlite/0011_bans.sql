-- The fleet's bans and allowances, and what nodes refuse of them.
-- The same tables, column by column, are in ../postgres.

-- One row for each net, whatever became of it. `revision`: of its last change; nodes are told what is newer than what
-- they hold. `lift_revision`: of its last lift, kept when it is banned anew, since the new ban may be the shorter one.
CREATE TABLE ban_list (
    kind          TEXT    NOT NULL CHECK (kind IN ('ban', 'allow')),
    net           TEXT    NOT NULL,
    origin        TEXT    NOT NULL,
    author        TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    jail          TEXT,
    evidence      TEXT,
    source        TEXT,
    created_at    INTEGER NOT NULL,
    changed_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    lifted_at     INTEGER,
    revision      INTEGER NOT NULL,
    lift_revision INTEGER,
    PRIMARY KEY (kind, net),
    CHECK (lifted_at IS NULL OR lift_revision IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX ban_list_by_revision ON ban_list (revision);
CREATE INDEX ban_list_by_end ON ban_list (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ban_list_lifted ON ban_list (lifted_at) WHERE lifted_at IS NOT NULL;

-- `list` names this list among all that ever were. `revision`: the last that was given; whoever changes the list changes
-- this row, so that revisions come in the order of commits. `lifts_known_from`: lifts up to it are forgotten.
CREATE TABLE ban_head (
    id               INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    list             TEXT    NOT NULL,
    revision         INTEGER NOT NULL,
    lifts_known_from INTEGER NOT NULL
) STRICT;
INSERT INTO ban_head (id, list, revision, lifts_known_from) VALUES (1, lower(hex(randomblob(16))), 0, 0);

-- Which node does not take which ban of the fleet.
CREATE TABLE ban_refusal (
    node       TEXT    NOT NULL,
    net        TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    refused_at INTEGER NOT NULL,
    PRIMARY KEY (node, net)
) STRICT;
CREATE INDEX ban_refusal_by_net ON ban_refusal (net);
