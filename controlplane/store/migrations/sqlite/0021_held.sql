-- Calls and incidents that were open in a backup, once it is restored: no phone rings for one until an operator lets it go on.
CREATE TABLE held (
    id      TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'call\_%' ESCAPE '\' OR id LIKE 'inc\_%' ESCAPE '\'),
    held_at INTEGER NOT NULL
) STRICT;
