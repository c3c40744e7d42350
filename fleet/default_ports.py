"""The stack's ports, unless they are changed. Standard library only: they are checked before anything is installed."""

DEFAULT_PORTS = {
    "mqtt": 21883,
    "kafka": 29092,
    "kafka_controller": 29093,
    "postgres": 25432,
    "airflow": 28080,
    "spark": 25002,
    "bridge_metrics": 29101,
    "landing_metrics": 29102,
    "live_metrics": 29103,
    "alerts_metrics": 29104,
    "history_metrics": 29105,
    "dispatcher_metrics": 29106,
    "alertmanager": 29094,
    "inbox": 29110,
    "inbox_smtp": 29111,
    "grafana": 23000,
    "stream_metrics": 29107,
    "gateway_metrics": 29108,
    "gateway_http": 28081,
    "gateway_coap": 25683,
    "commander_metrics": 29109,
}
"""In the order in which they follow WEIR_PORT_BASE."""
