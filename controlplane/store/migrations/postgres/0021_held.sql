-- Calls and incidents that were open in a backup, once it is restored: no phone rings for one until an operator lets it go on.
CREATE TABLE held (
    id      text        NOT NULL PRIMARY KEY CHECK (id LIKE 'call\_%' OR id LIKE 'inc\_%'),
    held_at timestamptz NOT NULL
);
