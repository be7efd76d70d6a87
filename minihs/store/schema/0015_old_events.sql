-- Events stored before there were indexes of relations and words (0007): those up to `upto` are looked through once,
-- and are in there up to `nid`.
CREATE TABLE old_events (id INTEGER PRIMARY KEY CHECK (id = 1), nid INTEGER NOT NULL, upto INTEGER NOT NULL);
INSERT INTO old_events SELECT 1, 0, COALESCE(MAX(event_nid), 0) FROM events;
