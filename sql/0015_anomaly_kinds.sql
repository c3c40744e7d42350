-- rate: the change for each `within` of the spec's max_change; stuck: how many seconds the run of equal values lasts.
ALTER TABLE anomalies DROP CONSTRAINT anomalies_kind_check;
ALTER TABLE anomalies ADD CONSTRAINT anomalies_kind_check CHECK (kind IN ('range', 'zscore', 'rate', 'stuck'));
