-- Sounds: customers' recordings, and texts that were spoken. A sound is kept once, whoever uses it.

-- A WAV of 8 kHz, mono, 16 bits; at most some 5 MB. The bytes stand last: the rest is read without them.
CREATE TABLE audio (
    sha256    BLOB    NOT NULL PRIMARY KEY CHECK (length(sha256) = 32),
    bytes     INTEGER NOT NULL CHECK (bytes >= 0),
    length_ms INTEGER NOT NULL CHECK (length_ms >= 0),
    wav       BLOB    NOT NULL
) STRICT;

-- A deleted one stays while calls that were accepted before may still play it.
CREATE TABLE recording (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'audio\_%' ESCAPE '\' AND length(id) = 32),
    org_id     TEXT    NOT NULL REFERENCES org (org_id),
    sha256     BLOB    NOT NULL REFERENCES audio (sha256),
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE INDEX recording_by_org ON recording (org_id, id);
CREATE INDEX recording_by_audio ON recording (sha256);

-- What a text became. The key is a hash of engine, language and text.
CREATE TABLE speech (
    key          BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    sha256       BLOB    NOT NULL REFERENCES audio (sha256),
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL
) STRICT;
CREATE INDEX speech_by_use ON speech (last_used_at);
CREATE INDEX speech_by_audio ON speech (sha256);
