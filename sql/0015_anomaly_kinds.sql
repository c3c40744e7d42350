-- rate: score is the change for each `within` of the spec's max_change; stuck: how many seconds the run of equal values
-- lasts, low and high are the value; missing: the silence in seconds that ends with this value, low is 0 and high what is
-- allowed; unseen: distance to the nearer limit of the days before.
ALTER TABLE anomalies DROP CONSTRAINT anomalies_kind_check;
ALTER TABLE anomalies ADD CONSTRAINT anomalies_kind_check
  CHECK (kind IN ('range', 'zscore', 'rate', 'stuck', 'unseen', 'missing'));
