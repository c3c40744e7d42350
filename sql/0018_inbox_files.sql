-- Files of readings that people dropped, and what became of each. `taking`: under way, or broken off, and then gone over
-- again by the next who looks. Any other outcome but `taken` says why nothing of the file was taken.
CREATE TABLE inbox_files (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type     text        NOT NULL, -- the folder's name
    name     text        NOT NULL,
    bytes    bigint,
    sha256   text,                 -- of the content; null: it was not read
    outcome  text        NOT NULL,
    detail   text        NOT NULL DEFAULT '',
    rows     bigint      NOT NULL DEFAULT 0,
    readings bigint      NOT NULL DEFAULT 0, -- rows that are readings
    old      bigint      NOT NULL DEFAULT 0, -- of these, so old that rules pass over them
    rejected bigint      NOT NULL DEFAULT 0, -- rows that went to the dead letters: rows = readings + rejected
    run_id   text        NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
-- The same content is taken once.
CREATE UNIQUE INDEX inbox_files_once ON inbox_files (type, sha256) WHERE outcome IN ('taking', 'taken');
CREATE INDEX inbox_files_by_time ON inbox_files (at DESC);
