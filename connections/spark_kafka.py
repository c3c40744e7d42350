"""How Spark's own Kafka source and sink reach the broker."""

from fleet.errors import ConfigurationError
from fleet.settings import Settings

LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def kafka_options(settings: Settings) -> dict[str, str]:
    """For `readStream` or `writeStream` of the format `kafka`, as this role. Raises ConfigurationError."""
    options = {
        "kafka.bootstrap.servers": settings.kafka_bootstrap,
        "kafka.security.protocol": settings.kafka_protocol,
    }
    if settings.kafka_protocol.startswith("SASL"):
        module = LOGIN_MODULES.get(settings.kafka_mechanism)
        if module is None:
            known = ", ".join(LOGIN_MODULES)
            raise ConfigurationError(f"WEIR_KAFKA_MECHANISM is {settings.kafka_mechanism}; Spark is given {known}")
        user, password = _quoted(settings.kafka_user), _quoted(settings.kafka_password.get_secret_value())
        options |= {
            "kafka.sasl.mechanism": settings.kafka_mechanism,
            "kafka.sasl.jaas.config": f"{module} required username={user} password={password};",
        }
    if settings.kafka_ca:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(settings.kafka_ca)}
    return options


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
