-- A label history of version 1, made by the statements of that version: Ada labels image 1, then images 1 and 2, takes the
-- latter back, and Bob labels image 2.
BEGIN;
CREATE TABLE label_history (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    action INTEGER NOT NULL,
    image  BLOB    NOT NULL CHECK (length(image) = 32),
    state  TEXT    NOT NULL CHECK (state IN ('class', 'not sure', 'none of these', 'bad image', 'no label')),
    class  INTEGER CHECK (class BETWEEN 0 AND 65535),
    who    TEXT    NOT NULL,
    at     TEXT    NOT NULL,
    origin TEXT    NOT NULL,
    undoes INTEGER,
    CHECK ((state = 'class') = (class IS NOT NULL))
) STRICT;
CREATE INDEX label_history_image ON label_history (image, id);
CREATE INDEX label_history_action ON label_history (action);
CREATE INDEX label_history_undoes ON label_history (undoes);
CREATE VIEW latest_labels AS
    SELECT * FROM label_history WHERE id IN (SELECT max(id) FROM label_history GROUP BY image);
CREATE VIEW current_labels AS SELECT * FROM latest_labels WHERE state <> 'no label';
CREATE TRIGGER label_history_keeps BEFORE UPDATE ON label_history
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
CREATE TRIGGER label_history_stays BEFORE DELETE ON label_history
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
PRAGMA user_version = 1;
INSERT INTO label_history (action, image, state, class, who, at, origin, undoes) VALUES
    (1, x'0101010101010101010101010101010101010101010101010101010101010101', 'class', 0, 'ada', '2026-11-23T10:00:00Z', 'page', NULL),
    (2, x'0101010101010101010101010101010101010101010101010101010101010101', 'class', 1, 'ada', '2026-11-23T10:00:01Z', 'page', NULL),
    (2, x'0202020202020202020202020202020202020202020202020202020202020202', 'class', 1, 'ada', '2026-11-23T10:00:01Z', 'page', NULL),
    (3, x'0101010101010101010101010101010101010101010101010101010101010101', 'class', 0, 'ada', '2026-11-23T10:00:02Z', 'undo', 2),
    (3, x'0202020202020202020202020202020202020202020202020202020202020202', 'no label', NULL, 'ada', '2026-11-23T10:00:02Z', 'undo', 2),
    (4, x'0202020202020202020202020202020202020202020202020202020202020202', 'not sure', NULL, 'bob', '2026-11-23T10:00:03Z', 'csv labels.csv', NULL);
COMMIT;
