-- What lets clients find their way in what they have read: relations, search, a look-up by time; and what tells
-- them of news while they sleep: pushers. Reports are here as well.

-- A row for each event of the timeline that relates to another one by `rel_type`. A redacted event has none.
CREATE TABLE relations (
  child_nid  INTEGER PRIMARY KEY REFERENCES events (event_nid) ON DELETE CASCADE,
  room_nid   INTEGER NOT NULL,
  parent_nid INTEGER NOT NULL,              -- may be an event that we do not have, or one of another room
  rel_type   TEXT NOT NULL,
  key        TEXT,                          -- of an m.annotation
  whole      INTEGER NOT NULL,              -- 0: an edit that has nothing to put in the place of what it edits
  topo       INTEGER NOT NULL,              -- the child's place, as in `events`
  arrival    INTEGER NOT NULL
);
CREATE INDEX relations_by_parent ON relations (parent_nid, rel_type, topo, arrival);
CREATE INDEX relations_threads ON relations (room_nid, parent_nid, topo, arrival) WHERE rel_type = 'm.thread';

-- The event closest to a point of time.
CREATE INDEX events_by_ts ON events (room_nid, ts) WHERE topo IS NOT NULL AND outcome = 0;

-- The words of messages, room names and topics; rowid is the event's number. Without a copy of the texts: what is
-- to be taken out is read from the event again.
CREATE VIRTUAL TABLE search USING fts5 (
  body, name, topic, content = '', tokenize = "unicode61 remove_diacritics 2"
);

-- Where to send notifications. A pusher goes with the device that made it.
CREATE TABLE pushers (
  pusher_id     INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id       TEXT NOT NULL,
  device_id     TEXT NOT NULL,
  app_id        TEXT NOT NULL,
  pushkey       TEXT NOT NULL,
  about         TEXT NOT NULL,              -- JSON: what else the client said of it
  created_ts    INTEGER NOT NULL,
  cursor        INTEGER NOT NULL,           -- `pos` up to which everything was pushed, or was not to be
  badge         INTEGER NOT NULL DEFAULT 0, -- the count of unread messages that the gateway was told last
  failing_since INTEGER,                    -- ms; NULL: healthy
  retry_at      INTEGER,                    -- ms; no attempt before
  backoff_ms    INTEGER NOT NULL DEFAULT 0,
  last_error    TEXT,
  UNIQUE (user_id, app_id, pushkey),
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
);
CREATE INDEX pushers_by_device ON pushers (user_id, device_id);
CREATE INDEX pushers_by_key ON pushers (app_id, pushkey);

-- What users find that an administrator should see.
CREATE TABLE reports (
  report_id   INTEGER PRIMARY KEY AUTOINCREMENT,
  reporter    TEXT NOT NULL,
  room_id     TEXT,                         -- of a report of a room or an event
  event_id    TEXT,
  user_id     TEXT,                         -- of a report of a user
  reason      TEXT NOT NULL,
  received_ts INTEGER NOT NULL
);
