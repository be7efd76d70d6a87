-- The transaction that was last begun for a server: sent again after whatever end, it is the same one.
ALTER TABLE destinations ADD COLUMN attempt_ts INTEGER;     -- ms; when it was made
ALTER TABLE destinations ADD COLUMN attempt_until INTEGER;  -- outbound.seq: the PDUs after `cursor` up to here
ALTER TABLE destinations ADD COLUMN attempt_edus TEXT;      -- JSON: [seq, ...] of durable EDUs
