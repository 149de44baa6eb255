-- Bounds on sounds that hold: whose call had a text spoken, and which recordings open calls need.

-- Whoever asked first. Texts of before this migration are nobody's, and count in all.
ALTER TABLE speech ADD COLUMN org_id text COLLATE "C" REFERENCES org (org_id);
CREATE INDEX speech_by_org ON speech (org_id, last_used_at);

-- What an open call plays, as the request says it.
CREATE INDEX call_open_recording ON call ((request->'message'->>'audio_id')) WHERE ended_at IS NULL;
