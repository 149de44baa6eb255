-- Operators look for calls by number, over all organisations. The same is in ../sqlite.
CREATE INDEX call_by_number ON call ((request ->> 'to'), id DESC);
