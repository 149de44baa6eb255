-- Health: what the control plane's machines knew last, and what an operator keeps out of use.
-- The same tables, column by column, are in ../sqlite.

-- Read by the control plane alone, which passes over what it cannot read: a machine without a snapshot starts anew.
-- The snapshot is text, since nothing asks into it and jsonb refuses what JSON may hold (U+0000).
CREATE TABLE health (
    kind     text NOT NULL CHECK (kind IN ('trunk', 'node')),
    name     text COLLATE "C" NOT NULL,
    snapshot text NOT NULL,
    saved_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
);

-- A disabled trunk, a draining node.
CREATE TABLE hold (
    kind   text NOT NULL CHECK (kind IN ('trunk', 'node')),
    name   text COLLATE "C" NOT NULL,
    since  timestamptz NOT NULL,
    reason text,
    PRIMARY KEY (kind, name)
);
