-- Connections of sliding sync: what a device has been sent over each, as of one of its answers.
CREATE TABLE sliding_connections (
  user_id    TEXT NOT NULL,
  device_id  TEXT NOT NULL,
  conn_id    TEXT NOT NULL,                 -- the client's own name for it; '': it gave none
  number     INTEGER NOT NULL,              -- random: a connection that is started anew gets another
  answer     INTEGER NOT NULL,              -- the last answer that the client is known to have
  pos        INTEGER NOT NULL,              -- and the position that it was made at
  rooms      BLOB NOT NULL,                 -- JSON, deflated: see minihs.sync.sliding.connections
  saved_ts   INTEGER NOT NULL,
  PRIMARY KEY (user_id, device_id, conn_id),
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) WITHOUT ROWID;
