-- Media: which file of data_dir/media belongs to which mxc:// URI. The files are named by their SHA-256; a row
-- is committed only after its file is on disk, and a file goes only after its last row.

CREATE TABLE local_media (
  media_id     TEXT PRIMARY KEY,
  user_id      TEXT,                          -- who uploaded it; NULL: made by the server, for a URL preview
  created_ts   INTEGER NOT NULL,
  expires_ts   INTEGER,                       -- when the row goes: never used, or made for a preview; NULL: never
  sha256       BLOB,                          -- NULL: created, not yet uploaded
  size         INTEGER NOT NULL DEFAULT 0,
  content_type TEXT,
  filename     TEXT
) WITHOUT ROWID;
CREATE INDEX local_media_by_file ON local_media (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX local_media_by_user ON local_media (user_id, size) WHERE user_id IS NOT NULL;
CREATE INDEX local_media_by_expiry ON local_media (expires_ts) WHERE expires_ts IS NOT NULL;

-- A cache. The least recently used goes first when it is over its budget.
CREATE TABLE remote_media (
  origin       TEXT NOT NULL,
  media_id     TEXT NOT NULL,
  sha256       BLOB NOT NULL,
  size         INTEGER NOT NULL,
  content_type TEXT NOT NULL,
  filename     TEXT,
  used_ts      INTEGER NOT NULL,              -- to within an hour
  PRIMARY KEY (origin, media_id)
) WITHOUT ROWID;
CREATE INDEX remote_media_by_file ON remote_media (sha256);
CREATE INDEX remote_media_by_use ON remote_media (used_ts, size);

-- A cache as well, under the same budget. By content, so that the same picture is made small once.
CREATE TABLE thumbnails (
  source       BLOB NOT NULL,                 -- SHA-256 of the picture
  width        INTEGER NOT NULL,              -- the size asked for, not that of the result
  height       INTEGER NOT NULL,
  method       TEXT NOT NULL,                 -- crop or scale
  sha256       BLOB NOT NULL,                 -- the result; the source itself if that is small enough
  size         INTEGER NOT NULL,              -- of the result; 0 if it is the source itself
  content_type TEXT NOT NULL,
  used_ts      INTEGER NOT NULL,
  PRIMARY KEY (source, width, height, method)
) WITHOUT ROWID;
CREATE INDEX thumbnails_by_file ON thumbnails (sha256);
CREATE INDEX thumbnails_by_use ON thumbnails (used_ts, size);

CREATE TABLE url_previews (
  url        TEXT PRIMARY KEY,
  answer     TEXT NOT NULL,                   -- JSON, as clients get it
  expires_ts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX url_previews_by_expiry ON url_previews (expires_ts);
