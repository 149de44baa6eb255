-- A start counts from when its attempt began until a second after it certainly left (`left_at`, which stays empty until then): however long its way to the
-- carrier takes, no second at the carrier has more of them than the account may. What the former version begins counts from its beginning alone.
ALTER TABLE carrier_start ADD COLUMN attempt_id text COLLATE "C";
ALTER TABLE carrier_start ADD COLUMN left_at timestamptz DEFAULT clock_timestamp();
CREATE INDEX carrier_start_of_attempt ON carrier_start (attempt_id);
CREATE INDEX carrier_start_left ON carrier_start (carrier, left_at) WHERE left_at IS NOT NULL;
CREATE INDEX carrier_start_leaving ON carrier_start (carrier, at) WHERE left_at IS NULL;
