-- Sounds: customers' recordings, and texts that were spoken. A sound is kept once, whoever uses it.
-- The same tables, column by column, are in ../sqlite.

-- A WAV of 8 kHz, mono, 16 bits; at most some 5 MB. The bytes stand last: the rest is read without them.
CREATE TABLE audio (
    sha256    bytea  NOT NULL PRIMARY KEY CHECK (length(sha256) = 32),
    bytes     bigint NOT NULL CHECK (bytes >= 0),
    length_ms bigint NOT NULL CHECK (length_ms >= 0),
    wav       bytea  NOT NULL
);

-- A deleted one stays while calls that were accepted before may still play it.
CREATE TABLE recording (
    id         text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'audio\_%' AND length(id) = 32),
    org_id     text COLLATE "C" NOT NULL REFERENCES org (org_id),
    sha256     bytea NOT NULL REFERENCES audio (sha256),
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX recording_by_org ON recording (org_id, id);
CREATE INDEX recording_by_audio ON recording (sha256);

-- What a text became. The key is a hash of engine, language and text.
CREATE TABLE speech (
    key          bytea NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    sha256       bytea NOT NULL REFERENCES audio (sha256),
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL
);
CREATE INDEX speech_by_use ON speech (last_used_at);
CREATE INDEX speech_by_audio ON speech (sha256);
