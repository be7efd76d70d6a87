-- A cache of the devices and cross-signing keys of users of other servers, for as long as we share a room with them
-- and so are told of every change. Losing it costs questions, nothing else.

CREATE TABLE remote_device_lists (
  user_id      TEXT PRIMARY KEY,
  stream_id    INTEGER,                       -- of the newest change that is in here; NULL: not known
  pos          INTEGER NOT NULL,              -- when it was fetched: later gaps in sharing a room make it worthless
  stale        INTEGER NOT NULL DEFAULT 0,    -- 1: a change was missed; the list must be fetched again
  master       TEXT,                          -- JSON
  self_signing TEXT
) WITHOUT ROWID;
CREATE INDEX remote_device_lists_stale ON remote_device_lists (user_id) WHERE stale = 1;

CREATE TABLE remote_devices (
  user_id   TEXT NOT NULL REFERENCES remote_device_lists (user_id) ON DELETE CASCADE,
  device_id TEXT NOT NULL,
  json      TEXT NOT NULL,                    -- DeviceKeys, with the device's name in `unsigned`
  PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;
