-- Health: what the control plane's machines knew last, and what an operator keeps out of use.

-- Read by the control plane alone, which passes over what it cannot read: a machine without a snapshot starts anew.
CREATE TABLE health (
    kind     TEXT    NOT NULL CHECK (kind IN ('trunk', 'node')),
    name     TEXT    NOT NULL,
    snapshot TEXT    NOT NULL,
    saved_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

-- A disabled trunk, a draining node.
CREATE TABLE hold (
    kind   TEXT    NOT NULL CHECK (kind IN ('trunk', 'node')),
    name   TEXT    NOT NULL,
    since  INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY (kind, name)
) STRICT;
