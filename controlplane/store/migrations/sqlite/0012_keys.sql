-- Organisations that can be suspended, keys with scopes, modes and rotation, and calls that are only rehearsed.
-- The same, column by column, is in ../postgres.

-- While it is set, none of the organisation's keys opens anything.
ALTER TABLE org ADD COLUMN suspended_at INTEGER;

-- `mode`: what a `test` key asks for never reaches a carrier. `rotated_from`: the key that this one takes the place of.
ALTER TABLE api_key ADD COLUMN mode TEXT NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test'));
ALTER TABLE api_key ADD COLUMN rotated_from TEXT REFERENCES api_key (id);

-- Keys of earlier releases go on doing what they could do: whoever might place calls had recordings and endpoints too,
-- whoever might read calls still reads both with that scope, and every operator could do everything.
UPDATE api_key SET scopes = json_insert(scopes, '$[#]', 'audio', '$[#]', 'webhooks')
WHERE org_id IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(scopes) WHERE value = 'calls:write');
UPDATE api_key SET scopes = '["viewer","operator","admin"]'
WHERE org_id IS NULL AND EXISTS (SELECT 1 FROM json_each(scopes) WHERE value = 'operator');

ALTER TABLE call ADD COLUMN mode TEXT NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test'));
-- A rehearsal must not be taken for the real call with the same `dedup_key`.
DROP INDEX call_open_dedup_key;
CREATE UNIQUE INDEX call_open_dedup_key ON call (org_id, mode, dedup_key)
    WHERE ended_at IS NULL AND dedup_key IS NOT NULL;
