"""Airflow reads this folder: each file is one DAG."""
