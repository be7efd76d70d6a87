-- The device of a user that nobody uses: it is sent room keys, for a device that logs in later to find. Not more than
-- one; its keys and messages are where those of other devices are.
CREATE TABLE dehydrated_devices (
  user_id     TEXT PRIMARY KEY,
  device_id   TEXT NOT NULL,
  device_data TEXT NOT NULL,                  -- JSON, encrypted by the client
  FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) WITHOUT ROWID;
