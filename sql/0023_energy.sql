-- What meters counted: fleet.energy says how. `energy_hours` and `energy_unattributed` are what people look at, the other
-- two what makes them exact: of a folder of the lake all rows are replaced with its rollups, in their transaction.

-- Energy of an appliance in an hour of its site's local time, with what it cost. An hour in which nothing was measured
-- has no row, one in which nothing was used a row with 0.
CREATE TABLE energy_hours (
    site        text             NOT NULL,
    device_type text             NOT NULL,
    device_id   text             NOT NULL,
    hour        timestamptz      NOT NULL, -- its beginning
    watt_hours  double precision NOT NULL CHECK (watt_hours >= 0),
    cost        double precision,          -- null where no tariff is valid; without standing charges
    currency    text,
    time_zone   text             NOT NULL DEFAULT 'UTC', -- the site's, when the hour was computed
    PRIMARY KEY (device_type, device_id, site, hour)
);
CREATE INDEX energy_hours_by_hour ON energy_hours (hour);

-- Energy that no hour has: one row from a value of the meter to the next. Not in energy_hours.
-- reason: gap, the meter was silent for long; crossing, it was silent while an hour ended, and not for long;
-- implausible, more than the appliance can use in that time (its real use is not known).
CREATE TABLE energy_unattributed (
    site            text             NOT NULL,
    device_type     text             NOT NULL,
    device_id       text             NOT NULL,
    starts_at       timestamptz      NOT NULL,
    ends_at         timestamptz      NOT NULL,
    watt_hours      double precision NOT NULL CHECK (watt_hours >= 0),
    reason          text             NOT NULL,
    most_watt_hours double precision,                     -- what it can use in that time, where that is known
    partition       text             NOT NULL DEFAULT '', -- the folder with the later value
    is_link         boolean          NOT NULL DEFAULT false -- the earlier value is in a folder before it
);
CREATE INDEX energy_unattributed_by_end ON energy_unattributed (ends_at);
CREATE INDEX energy_unattributed_by_partition ON energy_unattributed (partition);

-- What each folder adds to an hour.
CREATE TABLE energy_pieces (
    partition   text             NOT NULL,
    is_link     boolean          NOT NULL,
    device_type text             NOT NULL,
    device_id   text             NOT NULL,
    site        text             NOT NULL,
    hour        timestamptz      NOT NULL,
    watt_hours  double precision NOT NULL,
    PRIMARY KEY (partition, device_id, site, hour, is_link)
);
CREATE INDEX energy_pieces_by_hour ON energy_pieces (device_type, device_id, hour);

-- The first and the last value that a meter has in a folder, in the counter's unit.
CREATE TABLE energy_ends (
    partition   text             NOT NULL,
    device_type text             NOT NULL,
    device_id   text             NOT NULL,
    site        text             NOT NULL, -- of the first
    first_at    timestamptz      NOT NULL,
    first       double precision NOT NULL,
    last_at     timestamptz      NOT NULL,
    last        double precision NOT NULL,
    pace_us     bigint           NOT NULL, -- between its last two values; 0 where there is one
    PRIMARY KEY (device_type, device_id, first_at)
);
CREATE INDEX energy_ends_by_partition ON energy_ends (partition);

-- It is made anew, with a column more, by sql/always.
DROP FUNCTION IF EXISTS expire_type(text, timestamptz, timestamptz);
