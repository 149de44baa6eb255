-- Events that are of no call, lists of deliveries in the order of numbers, and looks for what is due that do not read
-- all that waits. The same, column by column, is in ../sqlite.

-- `failing_since`, `failed_at`, `failing_tries`: a time in which every try failed. What was counted before is forgotten.
ALTER TABLE webhook_endpoint ADD COLUMN failed_at timestamptz;
ALTER TABLE webhook_endpoint ADD COLUMN failing_tries integer NOT NULL DEFAULT 0;
UPDATE webhook_endpoint SET failing_since = NULL;

-- An event of no call has its `data` written down, and `endpoint_id` if it is of one.
ALTER TABLE outbox ALTER COLUMN call_id DROP NOT NULL;
ALTER TABLE outbox ADD COLUMN endpoint_id text COLLATE "C";
ALTER TABLE outbox ADD COLUMN data jsonb;
ALTER TABLE outbox ADD CHECK ((call_id IS NULL) = (data IS NOT NULL));

-- `position` is the event's.
ALTER TABLE webhook_delivery ALTER COLUMN call_id DROP NOT NULL;
ALTER TABLE webhook_delivery ADD COLUMN position bigint;
UPDATE webhook_delivery d SET position = o.position FROM outbox o WHERE o.id = d.event_id;
ALTER TABLE webhook_delivery ALTER COLUMN position SET NOT NULL;

-- A look steps from lane to lane of each organisation, and reads the first rows of each.
DROP INDEX webhook_delivery_due;
CREATE INDEX webhook_delivery_due ON webhook_delivery (org_id, lane, due_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
DROP INDEX webhook_delivery_by_endpoint;
CREATE INDEX webhook_delivery_by_endpoint ON webhook_delivery (endpoint_id);
-- The lists: one receiver's, and all.
CREATE INDEX webhook_delivery_by_target ON webhook_delivery (org_id, target, position);
CREATE INDEX webhook_delivery_by_position ON webhook_delivery (position, target);
