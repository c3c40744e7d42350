"""The only place that opens Kafka, MQTT, the lake, the warehouse, Spark and Airflow: small, with honest errors."""
