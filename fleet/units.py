"""Every unit a metric may have: how it is shown, and what it is called in Grafana. A test walks the whole table."""

from typing import NamedTuple


class Unit(NamedTuple):
    """`symbol` for people, `grafana` for panels, `quantity` for the data-model page."""

    symbol: str
    grafana: str
    quantity: str


UNITS: dict[str, Unit] = {
    "degC": Unit("°C", "celsius", "temperature"),
    "percent": Unit("%", "percent", "ratio"),
    "ppm": Unit("ppm", "ppm", "concentration"),
    "ppm_per_sample": Unit("ppm/sample", "none", "change of concentration"),
    "lux": Unit("lx", "lux", "illuminance"),
    "volt": Unit("V", "volt", "voltage"),
    "watt": Unit("W", "watt", "power"),
    "watt_hour": Unit("Wh", "watth", "energy"),
    "kilowatt_hour": Unit("kWh", "kwatth", "energy"),
    "millimetre": Unit("mm", "lengthmm", "length"),
    "metre_per_second": Unit("m/s", "velocityms", "speed"),
    "newton": Unit("N", "forceN", "force"),
    "hectopascal": Unit("hPa", "pressurehpa", "pressure"),
    "second": Unit("s", "s", "time"),
    "uv_index": Unit("UV index", "none", "index"),
    "per_second": Unit("/s", "cps", "rate"),
    "count": Unit("", "short", "count"),
    "bool": Unit("", "bool", "state"),
}

WATT_HOURS = {"watt_hour": 1.0, "kilowatt_hour": 1000.0}
"""Units of energy, in Wh."""
