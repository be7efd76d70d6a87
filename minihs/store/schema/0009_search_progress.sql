-- Up to which position live events are in the search index.
CREATE TABLE search_progress (id INTEGER PRIMARY KEY CHECK (id = 1), pos INTEGER NOT NULL);
INSERT INTO search_progress VALUES (1, 0);
