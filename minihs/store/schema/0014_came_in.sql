-- The event by which we last came into a room through another server: what was before it is history. NULL: made here.
ALTER TABLE rooms ADD COLUMN came_in INTEGER;
