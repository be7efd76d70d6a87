-- Rooms that we joined by part of their state: all but the members. What is known of them is completed later.
CREATE TABLE partial_joins (
  room_nid INTEGER PRIMARY KEY REFERENCES rooms ON DELETE CASCADE,
  event_nid INTEGER NOT NULL,           -- our join
  host TEXT NOT NULL,                   -- the server that we joined through
  joined_pos INTEGER NOT NULL,
  full_group INTEGER,                   -- the whole state before the join, once it is here
  attempts INTEGER NOT NULL DEFAULT 0,
  retry_at INTEGER NOT NULL DEFAULT 0,  -- ms
  completed_pos INTEGER                 -- when the members were there; NULL: they are not yet
);

-- Events whose place in the DAG we know, but the state there only in part, in the order in which they came.
-- They leave this table when their state is made whole. Those of a stay that ended before that remain.
CREATE TABLE partial_events (
  seq INTEGER PRIMARY KEY,
  room_nid INTEGER NOT NULL REFERENCES rooms ON DELETE CASCADE,
  event_nid INTEGER NOT NULL UNIQUE
);
CREATE INDEX partial_events_by_room ON partial_events (room_nid, seq);
