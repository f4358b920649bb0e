-- Format 2: how much streams and queues hold, kept in the transactions that change it.

ALTER TABLE streams ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN size INTEGER NOT NULL DEFAULT 0;

-- Messages that the queues of one account hold; `owner` is the first segment of their keys.
CREATE TABLE loads (
    owner TEXT PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;

-- What lies in a file counts as two megabytes: more than anything that format 1 put there.
UPDATE entries SET size = iif(spill IS NULL, length(value), 2097152);
UPDATE messages SET size = iif(spill IS NULL, length(body), 2097152);
UPDATE streams SET bytes = coalesce((SELECT sum(size) FROM entries WHERE stream = streams.id), 0);
INSERT INTO loads
    SELECT substr(key, 1, instr(key, '/') - 1), count(*), sum(size)
    FROM messages JOIN queues ON queues.id = messages.queue GROUP BY 1;
