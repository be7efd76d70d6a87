-- Rooms, events and state. Identifiers are interned: inside, everything is an integer ("nid").

-- One counter for everything that a client can see. A row that clients may see carries the `pos` at which it was
-- last written; commits happen in the order of `pos`, so "all that is new since pos" has no holes.
CREATE TABLE stream (id INTEGER PRIMARY KEY CHECK (id = 1), pos INTEGER NOT NULL);
INSERT INTO stream VALUES (1, 0);

CREATE TABLE rooms (
  room_nid    INTEGER PRIMARY KEY,
  room_id     TEXT NOT NULL UNIQUE,
  version     TEXT,                         -- NULL: known only from an invite or knock of unknown version
  state_group INTEGER,                      -- current resolved state; NULL while we are not in the room
  resident    INTEGER NOT NULL DEFAULT 0,   -- 1: a local user is joined, we hold its events
  published   INTEGER NOT NULL DEFAULT 0    -- listed in our public room directory
);

-- Event ids are interned whether or not we have the event: an edge may point to one that we lack.
CREATE TABLE event_ids (event_nid INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE);
CREATE TABLE state_keys (
  key_nid INTEGER PRIMARY KEY, type TEXT NOT NULL, state_key TEXT NOT NULL, UNIQUE (type, state_key)
);

CREATE TABLE events (
  event_nid    INTEGER PRIMARY KEY REFERENCES event_ids (event_nid),
  room_nid     INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  type         TEXT NOT NULL,
  sender       TEXT NOT NULL,
  key_nid      INTEGER REFERENCES state_keys (key_nid),  -- NULL: not a state event
  membership   TEXT,                        -- content.membership of an m.room.member event
  depth        INTEGER NOT NULL,            -- as claimed, clamped to 2^53-1; never orders anything by itself
  ts           INTEGER NOT NULL,            -- origin_server_ts, as claimed
  received_ts  INTEGER NOT NULL,
  outcome      INTEGER NOT NULL,            -- Outcome: 0 accepted, 1 soft-failed, 2 rejected
  reason       TEXT,                        -- why it was not accepted
  outlier      INTEGER NOT NULL,            -- 1: we have the event but not the state at it
  before_group INTEGER,                     -- state before and after; NULL for outliers
  after_group  INTEGER,
  topo         INTEGER,                     -- our own order along the DAG; NULL: not in the timeline
  arrival      INTEGER,                     -- the `pos` of a live event; negative, counting down, for history
  auth_nids    BLOB NOT NULL,               -- auth_events, packed little-endian 64-bit nids
  redacted_by  INTEGER,                     -- event_nid of the redaction in force
  version      TEXT                         -- room version, where it is another than the room's: of an invite to a
                                            -- room that we are not in we know only what its sender claims
);
CREATE INDEX events_by_topo ON events (room_nid, topo, arrival) WHERE topo IS NOT NULL;
CREATE INDEX events_by_arrival ON events (room_nid, arrival) WHERE topo IS NOT NULL;

CREATE TABLE event_json (
  event_nid INTEGER PRIMARY KEY REFERENCES events (event_nid) ON DELETE CASCADE,
  json      BLOB NOT NULL                   -- the PDU without `unsigned`, packed (store/packing.py); once it is
                                            -- redacted, its redacted form: the rest is gone for good
);

CREATE TABLE edges (
  event_nid INTEGER NOT NULL REFERENCES events (event_nid) ON DELETE CASCADE,
  prev_nid  INTEGER NOT NULL,
  PRIMARY KEY (event_nid, prev_nid)
) WITHOUT ROWID;
CREATE INDEX edges_by_prev ON edges (prev_nid);

CREATE TABLE forward_extremities (
  room_nid  INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  event_nid INTEGER NOT NULL,
  PRIMARY KEY (room_nid, event_nid)
) WITHOUT ROWID;

-- prev_events of timeline events that we do not have: where history can be asked for.
CREATE TABLE backward_extremities (
  room_nid  INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  event_nid INTEGER NOT NULL,               -- the missing event
  successor INTEGER NOT NULL,               -- an event that we have and that names it
  PRIMARY KEY (room_nid, event_nid, successor)
) WITHOUT ROWID;

-- A redaction that came before its target waits here.
CREATE TABLE pending_redactions (target_nid INTEGER NOT NULL, event_nid INTEGER NOT NULL,
  PRIMARY KEY (target_nid, event_nid)) WITHOUT ROWID;

-- State groups: a parent and the keys that changed; now and then a packed snapshot of the whole, and on the way there
-- rollups of many groups' changes. See minihs.store.state. All blobs hold packed (key_nid, event_nid) pairs.
CREATE TABLE state_groups (
  group_nid INTEGER PRIMARY KEY AUTOINCREMENT, -- always above its parent; never used again, so it may be cached
  room_nid  INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  parent    INTEGER,                        -- NULL: the first of its chain
  changes   BLOB,                           -- what differs from the parent; event 0: the key is gone
  hops      INTEGER NOT NULL,               -- groups from here to the nearest snapshot along the parents
  weight    INTEGER NOT NULL,               -- changes on that way
  room_size INTEGER NOT NULL,               -- keys in that snapshot
  skip      INTEGER,                        -- an ancestor some hops away
  rollup    BLOB,                           -- all that changed since `skip`, this group included
  snapshot  BLOB                            -- the whole state; hops is 0
);
CREATE INDEX state_groups_by_room ON state_groups (room_nid);

-- What the current state was from `pos` on.
CREATE TABLE room_states (
  room_nid  INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  pos       INTEGER NOT NULL,
  group_nid INTEGER NOT NULL,
  PRIMARY KEY (room_nid, pos)
) WITHOUT ROWID;

-- The current state unfolded, for point reads; same content as rooms.state_group.
CREATE TABLE current_state (
  room_nid  INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  key_nid   INTEGER NOT NULL,
  event_nid INTEGER NOT NULL,
  PRIMARY KEY (room_nid, key_nid)
) WITHOUT ROWID;

CREATE TABLE hosts (host_nid INTEGER PRIMARY KEY, host TEXT NOT NULL UNIQUE);

-- Who is what in which room, from the current state; for local users of rooms that we are not in, from the invite,
-- knock or leave that concerns them.
CREATE TABLE memberships (
  room_nid   INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  user_id    TEXT NOT NULL,
  host_nid   INTEGER NOT NULL,
  membership TEXT NOT NULL,                 -- join, invite, knock, leave, ban
  event_nid  INTEGER NOT NULL,
  local      INTEGER NOT NULL,              -- 1: one of our users
  pos        INTEGER NOT NULL,
  forgotten  INTEGER NOT NULL DEFAULT 0,
  stripped   TEXT,                          -- invite_room_state or knock_room_state, JSON; out-of-band only
  PRIMARY KEY (room_nid, user_id)
) WITHOUT ROWID;
CREATE INDEX memberships_by_user ON memberships (user_id, membership);
CREATE INDEX memberships_local ON memberships (room_nid, membership) WHERE local = 1;

-- Each change of a local user's membership, so that /sync can tell what the user was at an earlier `pos`.
CREATE TABLE membership_log (
  user_id TEXT NOT NULL, pos INTEGER NOT NULL, room_nid INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  membership TEXT NOT NULL, event_nid INTEGER NOT NULL,
  PRIMARY KEY (user_id, pos, room_nid)
) WITHOUT ROWID;

-- How many users of each server are joined to a room.
CREATE TABLE room_hosts (
  room_nid INTEGER NOT NULL REFERENCES rooms (room_nid) ON DELETE CASCADE,
  host_nid INTEGER NOT NULL,
  joined   INTEGER NOT NULL,
  PRIMARY KEY (room_nid, host_nid)
) WITHOUT ROWID;
CREATE INDEX room_hosts_by_host ON room_hosts (host_nid);

-- Work for the senders. A row names a set of servers, interned, so that one message to 2,000 servers is one row.
CREATE TABLE host_sets (host_set_nid INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
CREATE TABLE host_set_members (
  host_nid INTEGER NOT NULL, host_set_nid INTEGER NOT NULL, PRIMARY KEY (host_nid, host_set_nid)
) WITHOUT ROWID;
CREATE INDEX host_set_members_by_set ON host_set_members (host_set_nid);
CREATE TABLE outbound (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  event_nid    INTEGER NOT NULL REFERENCES events (event_nid) ON DELETE CASCADE,
  host_set_nid INTEGER NOT NULL
);
CREATE INDEX outbound_by_set ON outbound (host_set_nid, seq);
CREATE TABLE outbound_edus (                -- durable EDUs: to-device, device lists, signing keys
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  host_nid INTEGER NOT NULL,
  edu      TEXT NOT NULL                    -- {"edu_type": ..., "content": ...}
);
CREATE INDEX outbound_edus_by_host ON outbound_edus (host_nid, seq);
CREATE TABLE destinations (
  host_nid      INTEGER PRIMARY KEY,
  cursor        INTEGER NOT NULL DEFAULT 0, -- outbound.seq up to which the server has everything
  failing_since INTEGER,                    -- ms; NULL: healthy
  retry_at      INTEGER,                    -- ms; no attempt before
  backoff_ms    INTEGER NOT NULL DEFAULT 0,
  last_success  INTEGER,
  last_error    TEXT
);

-- PDUs and durable EDUs that were acknowledged and wait for their room or handler.
CREATE TABLE inbox (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  kind        INTEGER NOT NULL,             -- 0 PDU, 1 EDU, 2 PDU set aside: it made its step fail again and again
  room_id     TEXT NOT NULL DEFAULT '',
  event_id    TEXT NOT NULL DEFAULT '',
  origin      TEXT NOT NULL,
  json        BLOB NOT NULL,
  received_ts INTEGER NOT NULL,
  attempts    INTEGER NOT NULL DEFAULT 0,
  not_before  INTEGER NOT NULL DEFAULT 0    -- ms; a deferred PDU is not tried earlier
);
CREATE INDEX inbox_by_room ON inbox (room_id, seq);
CREATE INDEX inbox_by_event ON inbox (event_id) WHERE event_id != '';
CREATE TABLE inbound_txns (
  origin TEXT NOT NULL, txn_id TEXT NOT NULL, answer TEXT NOT NULL, received_ts INTEGER NOT NULL,
  PRIMARY KEY (origin, txn_id)
) WITHOUT ROWID;
CREATE INDEX inbound_txns_by_age ON inbound_txns (received_ts);

-- PUT .../send/{txnId} by a client: the event it made.
CREATE TABLE client_txns (
  user_id TEXT NOT NULL, device_id TEXT NOT NULL, scope TEXT NOT NULL, txn_id TEXT NOT NULL,
  event_nid INTEGER NOT NULL, created_ts INTEGER NOT NULL,
  PRIMARY KEY (user_id, device_id, scope, txn_id)
) WITHOUT ROWID;
CREATE INDEX client_txns_by_event ON client_txns (event_nid);

CREATE TABLE aliases (
  alias TEXT PRIMARY KEY, room_id TEXT NOT NULL, creator TEXT NOT NULL, created_ts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX aliases_by_room ON aliases (room_id);
