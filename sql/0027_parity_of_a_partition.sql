-- Of each audit its views (sql/always/20_views.sql) ask which others looked at the same records.
CREATE INDEX parity_by_partition ON parity (system, type, kafka_partition, ends_at);
