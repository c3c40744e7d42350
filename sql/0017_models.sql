-- Models that were trained, promoted or not, and what they estimated. The artefact lies in the lake, named by its sha256.
CREATE TABLE models (
    model_id     text             PRIMARY KEY, -- how the artefact's sha256 begins
    name         text             NOT NULL,    -- fleet.model
    system       text             NOT NULL,
    type         text             NOT NULL,
    sha256       text             NOT NULL UNIQUE,
    algorithm    text             NOT NULL,
    libraries    jsonb            NOT NULL,    -- {"scikit-learn": "1.9.1"}: another may not read it
    features     text[]           NOT NULL,    -- in the order in which it takes them
    code_version text             NOT NULL,    -- sha256 of the code that makes features and trains, as it was
    spec_version integer          NOT NULL,
    data_digest  text             NOT NULL,    -- of the lake's files that it was made from
    trained_from timestamptz      NOT NULL,    -- minutes with a known truth: the first and last to train on …
    trained_to   timestamptz      NOT NULL,
    trained_on   bigint           NOT NULL,
    holdout_from timestamptz      NOT NULL,    -- … and those that it was tried on
    holdout_to   timestamptz      NOT NULL,
    accuracy     double precision NOT NULL,    -- on these
    f1           double precision NOT NULL,
    metrics      jsonb            NOT NULL,    -- the rest: baselines, comparisons, candidates, confusion
    verdict      text             NOT NULL,    -- why it was promoted, or not
    parent       text             REFERENCES models, -- the champion when it was trained
    champion     boolean          NOT NULL DEFAULT false,
    replaced     text             REFERENCES models, -- the champion before it, when it was last promoted
    trained_at   timestamptz      NOT NULL DEFAULT now(),
    promoted_at  timestamptz,
    CHECK (trained_to < holdout_from),
    CHECK (NOT champion OR promoted_at IS NOT NULL)
);
CREATE UNIQUE INDEX models_champion ON models (name) WHERE champion;
CREATE INDEX models_by_time ON models (name, trained_at DESC);

-- A row a minute and model. Scoring a span anew replaces it.
CREATE TABLE predictions (
    at        timestamptz      NOT NULL, -- the beginning of the minute
    model_id  text             NOT NULL REFERENCES models,
    name      text             NOT NULL,
    system    text             NOT NULL,
    type      text             NOT NULL,
    site      text             NOT NULL,
    device_id text             NOT NULL, -- empty: of the whole site
    value     double precision NOT NULL,
    truth     double precision,          -- null: nobody counted
    scored_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, site, device_id, at)
);
SELECT create_hypertable('predictions', by_range('at', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX predictions_by_time ON predictions (name, at);
