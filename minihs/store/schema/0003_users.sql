-- Accounts of this server and what belongs to them. Remote users have no row here.

CREATE TABLE users (
  user_id       TEXT PRIMARY KEY,
  password_hash TEXT,                         -- argon2id; NULL: no login by password
  created_ts    INTEGER NOT NULL,
  admin         INTEGER NOT NULL DEFAULT 0,
  deactivated   INTEGER NOT NULL DEFAULT 0,   -- 1: for ever
  leaving       INTEGER NOT NULL DEFAULT 0,   -- 1: deactivated, and still to be taken out of its rooms
  locked        INTEGER NOT NULL DEFAULT 0,   -- 1: tokens are refused until unlocked
  suspended     INTEGER NOT NULL DEFAULT 0    -- 1: may read, not write
) WITHOUT ROWID;
CREATE INDEX users_leaving ON users (user_id) WHERE leaving = 1;

CREATE TABLE devices (
  user_id      TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  device_id    TEXT NOT NULL,
  display_name TEXT,
  created_ts   INTEGER NOT NULL,
  last_seen_ts INTEGER,
  last_seen_ip TEXT,
  PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

-- Tokens are kept as their SHA-256: who reads the database can't use them.
CREATE TABLE access_tokens (
  token_id   INTEGER PRIMARY KEY AUTOINCREMENT,
  digest     BLOB NOT NULL UNIQUE,
  user_id    TEXT NOT NULL,
  device_id  TEXT NOT NULL,
  created_ts INTEGER NOT NULL,
  expires_ts INTEGER,                         -- NULL: does not expire
  refresh_id INTEGER,                         -- the refresh token that was given out with it
  used       INTEGER NOT NULL DEFAULT 0,      -- 1: the client has it for certain
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
);
CREATE INDEX access_tokens_by_device ON access_tokens (user_id, device_id);
CREATE INDEX access_tokens_by_refresh ON access_tokens (refresh_id) WHERE refresh_id IS NOT NULL;

-- A refresh token stays good until the pair that it was exchanged for is used: the answer may have been lost.
CREATE TABLE refresh_tokens (
  refresh_id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest     BLOB NOT NULL UNIQUE,
  user_id    TEXT NOT NULL,
  device_id  TEXT NOT NULL,
  created_ts INTEGER NOT NULL,
  successor  INTEGER,                         -- refresh_id of the newest pair made from it
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_by_device ON refresh_tokens (user_id, device_id);

CREATE TABLE registration_tokens (
  digest     BLOB PRIMARY KEY,                -- SHA-256
  created_ts INTEGER NOT NULL,
  uses_left  INTEGER,                         -- NULL: any number
  expires_ts INTEGER                          -- NULL: never
) WITHOUT ROWID;

CREATE TABLE openid_tokens (
  digest     BLOB PRIMARY KEY,                -- SHA-256
  user_id    TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  expires_ts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX openid_tokens_by_expiry ON openid_tokens (expires_ts);

CREATE TABLE profiles (
  user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  field   TEXT NOT NULL,
  value   TEXT NOT NULL,                      -- JSON
  PRIMARY KEY (user_id, field)
) WITHOUT ROWID;

CREATE TABLE account_data (
  user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  room_id TEXT NOT NULL,                      -- '': global
  type    TEXT NOT NULL,
  content TEXT NOT NULL,                      -- JSON object
  pos     INTEGER NOT NULL,                   -- when it was last written
  PRIMARY KEY (user_id, room_id, type)
) WITHOUT ROWID;
CREATE INDEX account_data_by_pos ON account_data (user_id, pos);

-- How a user's push rules differ from the predefined ones; no row: not at all.
CREATE TABLE push_rules (
  user_id TEXT PRIMARY KEY REFERENCES users (user_id) ON DELETE CASCADE,
  changes TEXT NOT NULL,                      -- JSON, see matrix/push_rules.py
  pos     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE filters (
  filter_id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id   TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  digest    BLOB NOT NULL,                    -- SHA-256 of the canonical JSON: the same filter gets the same id
  json      TEXT NOT NULL,
  UNIQUE (user_id, digest)
);
