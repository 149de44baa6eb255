-- Attempts that ended before their node could be asked whether a key was pressed. The same, column by column, is in
-- ../sqlite.

-- While it is set, the node's flight record is still to be read, and to be kept there.
ALTER TABLE attempt ADD COLUMN is_untold boolean NOT NULL DEFAULT FALSE;
CREATE INDEX attempt_untold ON attempt (node, id) WHERE is_untold;
