-- Organisations that can be suspended, keys with scopes, modes and rotation, and calls that are only rehearsed.
-- The same, column by column, is in ../sqlite.

-- While it is set, none of the organisation's keys opens anything.
ALTER TABLE org ADD COLUMN suspended_at timestamptz;

-- `mode`: what a `test` key asks for never reaches a carrier. `rotated_from`: the key that this one takes the place of.
ALTER TABLE api_key ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test'));
ALTER TABLE api_key ADD COLUMN rotated_from text COLLATE "C" REFERENCES api_key (id);

-- Keys of earlier releases go on doing what they could do: whoever might place calls had recordings and endpoints too,
-- whoever might read calls still reads both with that scope, and every operator could do everything.
UPDATE api_key SET scopes = scopes || '["audio", "webhooks"]'::jsonb
WHERE org_id IS NOT NULL AND scopes @> '["calls:write"]'::jsonb;
UPDATE api_key SET scopes = '["viewer", "operator", "admin"]'::jsonb
WHERE org_id IS NULL AND scopes @> '["operator"]'::jsonb;

ALTER TABLE call ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test'));
-- A rehearsal must not be taken for the real call with the same `dedup_key`.
DROP INDEX call_open_dedup_key;
CREATE UNIQUE INDEX call_open_dedup_key ON call (org_id, mode, dedup_key)
    WHERE ended_at IS NULL AND dedup_key IS NOT NULL;
