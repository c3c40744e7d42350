"""What Airflow needs to know of Weir: tasks, connections and screens. DAGs import from here."""
