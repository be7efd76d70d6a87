-- Tokens that log in once, asked for by a device for another one; they end with the device that asked.
CREATE TABLE login_tokens (
  digest     BLOB PRIMARY KEY,                -- SHA-256
  user_id    TEXT NOT NULL,
  device_id  TEXT NOT NULL,
  expires_ts INTEGER NOT NULL,
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX login_tokens_by_device ON login_tokens (user_id, device_id);
CREATE INDEX login_tokens_by_expiry ON login_tokens (expires_ts);
