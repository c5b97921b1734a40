-- States go back into the actors' rows.
UPDATE actors SET state = journal.state FROM journal
    WHERE actors.state IS NULL AND journal.kind = actors.kind AND journal.id = actors.id
    AND journal.generation = actors.generation;
ALTER TABLE journal RESET (toast_tuple_target);
ALTER TABLE actors ALTER COLUMN state SET NOT NULL;
CREATE INDEX actors_deadline ON actors (deadline) WHERE deadline IS NOT NULL;
