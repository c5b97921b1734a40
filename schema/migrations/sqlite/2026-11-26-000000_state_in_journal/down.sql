-- States go back into the actors' rows.
CREATE TABLE actors_anew (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    state TEXT NOT NULL,
    deadline BIGINT,
    updated BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
INSERT INTO actors_anew
    SELECT a.kind, a.id, a.generation, coalesce(a.state, j.state), a.deadline, a.updated
    FROM actors AS a LEFT JOIN journal AS j ON j.kind = a.kind AND j.id = a.id AND j.generation = a.generation;
DROP TABLE actors;
ALTER TABLE actors_anew RENAME TO actors;
CREATE INDEX actors_deadline ON actors (deadline) WHERE deadline IS NOT NULL;
