-- The piece of work that a line of history belongs to.
ALTER TABLE events ADD COLUMN trace TEXT;
