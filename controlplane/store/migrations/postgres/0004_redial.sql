-- Redials, acknowledgements, and how often a number was dialled. The same, column by column, is in ../sqlite.

-- `redial_at`: the call waits for its next round, of which `round` is the number; empty once that has begun.
-- `ack_*`: the key that decided the call, written the moment it was heard.
ALTER TABLE call ADD COLUMN round integer NOT NULL DEFAULT 1 CHECK (round >= 1);
ALTER TABLE call ADD COLUMN redial_at timestamptz;
ALTER TABLE call ADD COLUMN ack_key text;
ALTER TABLE call ADD COLUMN ack_action text;
ALTER TABLE call ADD COLUMN ack_at timestamptz;

ALTER TABLE attempt ADD COLUMN round integer NOT NULL DEFAULT 1 CHECK (round >= 1);
ALTER TABLE attempt ADD COLUMN heard_key text;
ALTER TABLE attempt ADD COLUMN machine text;

-- What an event tells at any later time: with `outcome` the call's end, with `heard_key` an acknowledgement, with
-- `redial_at` that another round follows.
ALTER TABLE call_transition ADD COLUMN outcome text;
ALTER TABLE call_transition ADD COLUMN heard_key text;
ALTER TABLE call_transition ADD COLUMN redial_at timestamptz;

-- The start of each round, where numbers are throttled. Written with the round's first attempt; what no window
-- reaches back to is erased with the number's next start.
CREATE TABLE dialled (
    call_id    text COLLATE "C" NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    round      integer NOT NULL,
    org_id     text COLLATE "C" NOT NULL REFERENCES org (org_id),
    number     text NOT NULL,
    started_at timestamptz NOT NULL,
    PRIMARY KEY (call_id, round)
);
CREATE INDEX dialled_by_number ON dialled (org_id, number, started_at);
