-- Operators look for calls by number, over all organisations. The same is in ../postgres.
CREATE INDEX call_by_number ON call (json_extract(request, '$.to'), id DESC);
