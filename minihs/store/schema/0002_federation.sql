-- What we know of other servers: where they are and with which keys they sign.

-- Answers of .well-known and DNS SRV look-ups, kept over restarts. For finding servers only; losing it costs time.
CREATE TABLE discovery_cache (
  kind       TEXT NOT NULL,               -- 'well-known' or 'srv'
  name       TEXT NOT NULL,               -- host name asked about
  answer     TEXT,                        -- JSON; 'null': there is none; NULL: never got an answer
  fetched_ts INTEGER NOT NULL,            -- when the answer was given
  expires_ts INTEGER NOT NULL,            -- ask again from then on
  failures   INTEGER NOT NULL DEFAULT 0,  -- attempts in a row that got no answer
  PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX discovery_cache_by_age ON discovery_cache (expires_ts);

-- Key documents as they came, for serving as a notary: the newest that has each key.
CREATE TABLE key_documents (
  doc_nid        INTEGER PRIMARY KEY,
  server         TEXT NOT NULL,
  json           BLOB NOT NULL,
  fetched_ts     INTEGER NOT NULL,
  valid_until_ts INTEGER NOT NULL,        -- no more than seven days after fetched_ts
  direct         INTEGER NOT NULL         -- 1: from the server itself, 0: through a notary
);
CREATE INDEX key_documents_by_server ON key_documents (server, fetched_ts);

CREATE TABLE server_keys (
  server         TEXT NOT NULL,
  key_id         TEXT NOT NULL,
  public_key     BLOB NOT NULL,
  valid_until_ts INTEGER NOT NULL,        -- of the newest document that has the key, capped
  expired_ts     INTEGER,                 -- not NULL: an old key, for events up to then
  direct         INTEGER NOT NULL,
  doc_nid        INTEGER NOT NULL,
  PRIMARY KEY (server, key_id)
) WITHOUT ROWID;
CREATE INDEX server_keys_by_document ON server_keys (doc_nid);

-- Durable EDUs leave in this order: to-device messages first.
CREATE INDEX outbound_edus_in_order
  ON outbound_edus (host_nid, (json_extract(edu, '$.edu_type') <> 'm.direct_to_device'), seq);
