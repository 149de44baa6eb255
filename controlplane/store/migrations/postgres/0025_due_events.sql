-- A server that has not analysed this table since it was small took the index of what is due to find the first event of a call, and read all of
-- it: 5,000 rows for one. Its predicate names due_at now, which that question does not.
DROP INDEX webhook_delivery_due;
CREATE INDEX webhook_delivery_due ON webhook_delivery (org_id, lane, due_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL AND due_at IS NOT NULL;
