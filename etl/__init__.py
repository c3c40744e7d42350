"""The nightly half: discover, validate, split, roll up, load, reconcile. Knows no Airflow."""
