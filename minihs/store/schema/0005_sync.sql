-- What /sync and the other reading paths keep for themselves: receipts, and indexes over the tables of rooms.

-- "Read up to here", one row for each (user, type, thread) in a room; a newer receipt replaces the older.
CREATE TABLE receipts (
  room_nid INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  user_id  TEXT NOT NULL,
  kind     TEXT NOT NULL,                   -- m.read or m.read.private
  thread   TEXT NOT NULL,                   -- '': unthreaded; main; or the event id of the thread's root
  event_id TEXT NOT NULL,                   -- may be an event that we do not have: other servers say so
  ts       INTEGER NOT NULL,                -- ms, as claimed
  pos      INTEGER NOT NULL,
  PRIMARY KEY (room_nid, user_id, kind, thread)
) WITHOUT ROWID;
CREATE INDEX receipts_by_pos ON receipts (room_nid, pos);

-- All that a user was in one room, in order.
CREATE INDEX membership_log_by_room ON membership_log (user_id, room_nid, pos);

-- Heroes and counts of a room's summary, without reading all its members.
CREATE INDEX memberships_by_kind ON memberships (room_nid, membership, pos);
