-- Format 1. Times are microseconds since the epoch; `spill` names a file in values/ that holds the
-- value instead of the row.

CREATE TABLE counters (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    message INTEGER NOT NULL,
    token INTEGER NOT NULL,
    forgotten INTEGER NOT NULL
);
INSERT INTO counters VALUES (1, 0, 0, 0, 0);

CREATE TABLE records (
    key TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL UNIQUE,
    spill TEXT,
    value BLOB NOT NULL
);
CREATE INDEX records_spilled ON records (spill) WHERE spill IS NOT NULL;

-- Deletions, for watches that come to them later.
CREATE TABLE tombstones (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE
);

CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    next INTEGER NOT NULL,
    last INTEGER NOT NULL
);
CREATE TABLE entries (
    stream INTEGER NOT NULL,
    position INTEGER NOT NULL,
    at INTEGER NOT NULL,
    spill TEXT,
    value BLOB NOT NULL,
    UNIQUE (stream, position)
);
CREATE INDEX entries_spilled ON entries (spill) WHERE spill IS NOT NULL;

CREATE TABLE queues (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE
);
-- `blocked`: an earlier message of the same group is still there. `token`: 0 when not in flight.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    lane TEXT,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    token INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    spill TEXT,
    body BLOB NOT NULL
);
CREATE INDEX messages_of_queue ON messages (queue);
CREATE INDEX messages_due ON messages (queue, due) WHERE blocked = 0;
CREATE INDEX messages_of_lane ON messages (queue, lane) WHERE lane IS NOT NULL;
CREATE INDEX messages_spilled ON messages (spill) WHERE spill IS NOT NULL;

-- Calls that were acted upon. `kind`: 0 for streams, 1 for queues.
CREATE TABLE calls (
    kind INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    id TEXT NOT NULL,
    result INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (kind, scope, id)
) WITHOUT ROWID;
CREATE INDEX calls_expired ON calls (expires);

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    token INTEGER NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
