-- Attempts that ended before their node could be asked whether a key was pressed. The same, column by column, is in
-- ../postgres.

-- While it is set, the node's flight record is still to be read, and to be kept there.
ALTER TABLE attempt ADD COLUMN is_untold INTEGER NOT NULL DEFAULT 0 CHECK (is_untold IN (0, 1));
CREATE INDEX attempt_untold ON attempt (node, id) WHERE is_untold;
