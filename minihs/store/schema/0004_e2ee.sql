-- Keys of devices and users, and messages to devices.

CREATE TABLE device_keys (
  user_id   TEXT NOT NULL,
  device_id TEXT NOT NULL,
  json      TEXT NOT NULL,                    -- as uploaded, without `unsigned`
  PRIMARY KEY (user_id, device_id),
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE one_time_keys (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT, -- the order in which they are handed out
  user_id   TEXT NOT NULL,
  device_id TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  key_id    TEXT NOT NULL,
  json      TEXT NOT NULL,
  digest    BLOB NOT NULL,                    -- SHA-256 of the public key
  UNIQUE (user_id, device_id, algorithm, key_id),
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
);
CREATE INDEX one_time_keys_in_order ON one_time_keys (user_id, device_id, algorithm, seq);

-- One-time keys that were handed out: a repeated upload must not bring them back.
CREATE TABLE claimed_keys (
  user_id    TEXT NOT NULL,
  device_id  TEXT NOT NULL,
  digest     BLOB NOT NULL,                   -- SHA-256 of the public key
  claimed_ts INTEGER NOT NULL,
  PRIMARY KEY (user_id, device_id, digest),
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX claimed_keys_by_age ON claimed_keys (claimed_ts);

CREATE TABLE fallback_keys (
  user_id   TEXT NOT NULL,
  device_id TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  key_id    TEXT NOT NULL,
  json      TEXT NOT NULL,
  used      INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (user_id, device_id, algorithm),
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE cross_signing_keys (
  user_id    TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  usage      TEXT NOT NULL,                   -- master, self_signing, user_signing
  public_key TEXT NOT NULL,                   -- unpadded base64, also its id
  json       TEXT NOT NULL,                   -- as uploaded
  PRIMARY KEY (user_id, usage)
) WITHOUT ROWID;

-- Signatures of our users that were uploaded later, by what they sign.
CREATE TABLE key_signatures (
  user_id    TEXT NOT NULL,                   -- whose key is signed; may be a remote user
  key_id     TEXT NOT NULL,                   -- device id, or public key of a cross-signing key
  signer     TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  signer_key TEXT NOT NULL,                   -- "ed25519:..."
  signature  TEXT NOT NULL,
  PRIMARY KEY (user_id, key_id, signer, signer_key)
) WITHOUT ROWID;
CREATE INDEX key_signatures_by_signer ON key_signatures (signer);

-- When one of our users last signed keys of somebody: the signer's own devices are told.
CREATE TABLE signed_users (
  signer  TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  user_id TEXT NOT NULL,
  pos     INTEGER NOT NULL,
  PRIMARY KEY (signer, user_id)
) WITHOUT ROWID;

-- The `pos` at which a user's devices or cross-signing keys last changed; remote users too. For `device_lists.changed`.
CREATE TABLE device_list_changes (
  user_id TEXT PRIMARY KEY,
  pos     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX device_list_changes_by_pos ON device_list_changes (pos);

-- The newest stream_id of each local user's m.device_list_update EDUs.
CREATE TABLE device_list_streams (
  user_id   TEXT PRIMARY KEY REFERENCES users (user_id) ON DELETE CASCADE,
  stream_id INTEGER NOT NULL
) WITHOUT ROWID;

-- Messages that wait for a device; a row goes when the device's next `since` proves that it was received.
CREATE TABLE to_device (
  pos       INTEGER PRIMARY KEY,
  user_id   TEXT NOT NULL,
  device_id TEXT NOT NULL,
  json      TEXT NOT NULL,                    -- {"sender": ..., "type": ..., "content": ...}
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
);
CREATE INDEX to_device_by_device ON to_device (user_id, device_id, pos);

-- Which PUT /sendToDevice and which m.direct_to_device EDUs were seen already.
CREATE TABLE to_device_txns (
  sender    TEXT NOT NULL,
  device_id TEXT NOT NULL,                    -- '' for an EDU
  scope     TEXT NOT NULL,                    -- event type; for an EDU the server it came from
  txn_id    TEXT NOT NULL,                    -- message_id of an EDU
  seen_ts   INTEGER NOT NULL,
  PRIMARY KEY (sender, device_id, scope, txn_id)
) WITHOUT ROWID;
CREATE INDEX to_device_txns_by_age ON to_device_txns (seen_ts);

CREATE TABLE key_backups (
  user_id   TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  version   INTEGER NOT NULL,
  algorithm TEXT NOT NULL,
  auth_data TEXT NOT NULL,                    -- JSON
  etag      INTEGER NOT NULL DEFAULT 0,       -- counts changes
  key_count INTEGER NOT NULL DEFAULT 0,
  deleted   INTEGER NOT NULL DEFAULT 0,       -- 1: only its number is kept, so that it is not given again
  PRIMARY KEY (user_id, version)
) WITHOUT ROWID;

CREATE TABLE backed_up_keys (
  user_id             TEXT NOT NULL,
  version             INTEGER NOT NULL,
  room_id             TEXT NOT NULL,
  session_id          TEXT NOT NULL,
  first_message_index INTEGER NOT NULL,
  forwarded_count     INTEGER NOT NULL,
  is_verified         INTEGER NOT NULL,
  session_data        TEXT NOT NULL,          -- JSON
  PRIMARY KEY (user_id, version, room_id, session_id),
  FOREIGN KEY (user_id, version) REFERENCES key_backups (user_id, version) ON DELETE CASCADE
) WITHOUT ROWID;
