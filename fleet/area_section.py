"""The sections that an area's page begins with. They follow from what its types measure: states, power and energy
counters, temperature and humidity."""

from collections.abc import Iterator, Sequence
from typing import Any

from fleet import area_sql as sql
from fleet import metric_sql, panel, security_log
from fleet.area import Area, words_of
from fleet.catalog import System
from fleet.consumption import (
    LEAST_KNOWN,
    LEAST_NIGHT_MINUTES,
    LEAST_PEERS,
    LEAST_WEEKS,
    NIGHT_HOURS,
    STANDBY_QUANTILE,
)
from fleet.home_energy import BASELINE
from fleet.meter import appliances_of, meter_of, power_of
from fleet.metric_panel import FLEET_AND_CHOSEN, interval_of, title_of
from fleet.panel import BAD, GOOD, SEVERITY_COLOURS, Json, Panel, Section, override, steps
from fleet.panel_sql import literal, values
from fleet.registry import params_of
from fleet.spec import DeviceType
from fleet.units import UNITS

ODD = SEVERITY_COLOURS["warning"]
ALARMING = {"smoke": BAD, "tampered with": BAD, "open": ODD, "silent": ODD, "motion": "blue", "closed": GOOD,
            "no smoke": GOOD}  # fmt: skip
CELL = {"custom__displayMode": "color-background"}
SHARE: Json = {"unit": "percentunit", "decimals": 0}
ENERGY: Json = {"unit": "watth", "decimals": 1}
POWER: Json = {"unit": "watt", "decimals": 0}
LIVE = "1h"
BY_THE_HOUR = "1h"
MOULD = steps(GOOD, (70, ODD), (80, BAD))
COMFORT = panel.coloured_texts(
    {"comfortable": GOOD, "cold": "blue", "hot": "orange", "dry": "yellow", "humid": "purple"}
)  # fmt: skip
COMFORTABLE = {"coldest": 20.0, "warmest": 26.0, "driest": 25.0, "dampest": 60.0}
"""Category II of EN 16798-1, °C and %: of types without a rule that has these params."""
OBEYED = panel.coloured_texts(
    {"obeyed": GOOD, "requested": "blue", "sent": "blue", "delivered": "blue", "expired": ODD, "refused": BAD}
)


def title(spec: DeviceType) -> str:
    return spec.title or spec.type


def of_area(area: Area, system: System, types: tuple[DeviceType, ...]) -> Iterator[Section]:
    """Those for which there is something to show."""
    if area == "energy":
        yield from energy(types)
    elif area == "security":
        yield from security(system, types)
    elif area == "environment":
        yield from environment(types)
    else:
        yield from automation(system, types)


def security(system: System, types: tuple[DeviceType, ...]) -> Iterator[Section]:
    rows = []
    for spec in types:
        state = next((name for name, metric in spec.metrics.items() if metric.kind == "state"), None)
        if state is not None:
            words, silent = words_of(state, spec.metrics[state].title), spec.silent_after
            stale = "NULL::interval" if silent is None else f"INTERVAL '{silent.total_seconds():g} seconds'"
            texts = [literal(text) for text in (spec.type, title(spec), state, words.on, words.off)]
            rows.append([*texts, stale])
    if not rows:
        return
    log = security_log.log(system, "$__timeFrom()::timestamptz", "$__timeTo()::timestamptz")
    yield Section(
        "Doors, detectors, alarms and people",
        [
            panel.table(
                "State of each",
                "How each device of this area is at the end of the range, and until when in the two hours before it was"
                " otherwise. Silent: three readings did not come.",
                sql.STATES.format(types=values(rows)),
                overrides=[
                    override("state", mappings=panel.coloured_texts(ALARMING), custom__displayMode="color-text"),
                    override("otherwise until", noValue="long ago, or before the range"),
                    override("tamper", mappings=panel.coloured_texts(ALARMING), custom__displayMode="color-text"),
                    override("battery", unit="percent", decimals=0, noValue="-"),
                    override("last reading", noValue="not in this range"),
                ],
                height=12,
            ),
            panel.table(
                "Event log",
                "What happened in this range, the latest first, at most two hundred; with the hour there, and who was"
                " at home at that time. weir events has all of it.",
                sql.EVENTS.format(log=log),
                overrides=[panel.SEVERITY_COLUMN],
                nothing="nothing happened",
                height=12,
            ),
        ],
        per_row=2,
    )
    yield Section(
        "What happened",
        [
            panel.bars_over_time(
                "Events, by kind",
                "How often doors were opened and closed, motion began, somebody came or left, and alerts changed.",
                sql.EVENTS_OVER_TIME.format(log=log),
                interval="1m",
            )
        ],
    )


def energy(types: tuple[DeviceType, ...]) -> Iterator[Section]:
    powers = [(spec, name) for spec in types for name, metric in spec.metrics.items() if metric.unit == "watt"]
    if powers:
        rows = values([literal(text) for text in (spec.type, name, title(spec))] for spec, name in powers)
        power = sql.POWERS.format(powers=rows)
        sums = ", ".join(sql.POWER_SUM.format(type=literal(s.type), title=title(s)) for s, _ in powers)
        yield Section(
            "Power now",
            [
                panel.stat(
                    "Power, all together",
                    "What all devices of each kind take at the end of the range. Meters measure what plugs do, too.",
                    power + sql.POWER_SUMS.format(sums=sums),
                    **POWER,
                ),
                *(live(spec, name) for spec, name in powers),
                panel.table(
                    "Power of each",
                    "What each takes at the end of the range, and its share of all of its kind at its site.",
                    power + sql.POWER_TABLE,
                    overrides=[override("power", **POWER), override("share", **SHARE)],
                    nothing="nothing was heard in the last five minutes",
                ),
            ],
            per_row=2,
        )
    counting = [spec for spec in types if meter_of(spec)]
    if counting:
        yield from used(counting)


def live(spec: DeviceType, name: str) -> Panel:
    query = metric_sql.OF_DEVICE.format(type=spec.type, metric=name, **metric_sql.MEAN) + sql.TOTAL
    return panel.timeseries(
        f"{title(spec)}: {title_of(spec, name).lower()} of the last hour",
        "What all devices together and $device took, whatever range is chosen above.",
        query,
        overrides=FLEET_AND_CHOSEN,
        interval=interval_of(spec),
        span=LIVE,
        min=0,
        **POWER,
    )


def hogs(specs: Sequence[DeviceType], types: str) -> Panel:
    kinds: list[list[str]] = []
    powers: list[list[str]] = []
    for spec in specs:
        params, power = appliances_of(params_of(spec)), power_of(spec)
        kinds += [[literal(spec.type), literal(name)] for name in params] or [[literal(spec.type), "NULL::text"]]
        powers.append([literal(spec.type), literal(power) if power else "NULL::text"])
    query = sql.HOGS.format(
        types=types,
        kinds=values(kinds),
        powers=values(powers),
        days=BASELINE.days,
        least_known=LEAST_KNOWN,
        least_weeks=LEAST_WEEKS,
        least_peers=LEAST_PEERS,
        quantile=STANDBY_QUANTILE,
        night_hours=NIGHT_HOURS,
        least_minutes=LEAST_NIGHT_MINUTES,
    )
    return panel.table(
        "Energy hogs",
        "Appliances, the most energy first: its share of all its home used; how much that was beside its usual, the"
        f" median of what the same weekdays and hours took in the {BASELINE.days // 7} weeks before, and beside the"
        " median of others of its kind; what it draws by night when it does nothing, in the last seven days at most;"
        " and what it cost. weir energy hogs says of whom it is unusual.",
        query,
        overrides=[
            override("energy", **ENERGY),
            override("share of its home", **SHARE),
            override("times its usual", decimals=2, noValue="too few weeks before"),
            override("times its peers", decimals=2, noValue="too few of its kind"),
            override("standby", unit="watt", decimals=1, noValue="no night"),
            override("cost", decimals=2, noValue="no tariff, or more than one currency"),
        ],
        nothing="no energy in this range",
    )


def used(specs: Sequence[DeviceType]) -> Iterator[Section]:
    """Of types that count energy."""
    types = ", ".join(literal(spec.type) for spec in specs)
    yield Section(
        "Energy used",
        [
            energy_bars(
                "Energy, by kind",
                "What each kind of device counted in each hour. A meter counts what plugs count, too.",
                sql.ENERGY_BY_TYPE.format(types=types),
            ),
            energy_bars(
                "Energy of appliances",
                "What the eight that used most in this range used in each hour, and all others together.",
                sql.ENERGY_BY_DEVICE.format(types=types),
                custom__stacking={"mode": "normal", "group": "A"},
            ),
            hogs(specs, types),
            panel.table(
                "Energy that nobody is charged with",
                "What counters rose by while nobody heard them: it belongs to no hour, and is in no figure above. What"
                " is implausible says nothing of what was used.",
                sql.UNATTRIBUTED.format(types=types),
                overrides=[override("energy", noValue="not known", **ENERGY)],
                nothing="none in this range",
            ),
        ],
        per_row=2,
    )
    yield Section(
        "Cost",
        [
            energy_bars(
                "Cost, by kind",
                "What the energy of each hour cost, in the tariff's currency.",
                sql.COST_OVER_TIME.format(types=types),
                unit="short",
                decimals=2,
                noValue="no tariff, or nothing in this range",
            ),
            panel.table(
                "Energy and cost of this range",
                "Of each kind of device at each site.",
                sql.COST.format(types=types),
                overrides=[override("energy", **ENERGY), override("cost", decimals=2, noValue="no tariff")],
                nothing="no energy in this range",
            ),
        ],
        per_row=2,
    )


BARS: Json = {"drawStyle": "bars", "fillOpacity": 60, "lineWidth": 0, "showPoints": "never"}


def energy_bars(name: str, description: str, query: str, **defaults: Any) -> Panel:
    """By the hour."""
    custom = {f"custom__{key}": value for key, value in BARS.items()}
    common: Json = {"unit": "watth", "min": 0, "noValue": "none in this range", **custom, **defaults}
    return panel.timeseries(name, description, query, interval=BY_THE_HOUR, **common)


def comfortable(spec: DeviceType) -> list[float]:
    """Coldest, warmest, driest, dampest: what the type's rule goes by, if one does."""
    params = next((rule.params for rule in spec.alerts if set(COMFORTABLE) <= set(rule.params)), COMFORTABLE)
    return [params[name] for name in COMFORTABLE]


def environment(types: tuple[DeviceType, ...]) -> Iterator[Section]:
    airs = [spec for spec in types if {"temperature", "humidity"} <= set(spec.metrics)]
    if not airs:
        return
    rows = values(
        [literal(spec.type), "true" if spec.outdoors else "false", *(f"{limit:g}" for limit in comfortable(spec))]
        for spec in airs
    )
    panels = [
        panel.table(
            "Rooms now",
            "Comfortable is within the limits of the type's rule, or the device's own. The dew point is by Magnus'"
            " formula. Coldest corner: the relative humidity there by DIN 4108-2, from the temperature outside; mould"
            " begins at 80 %.",
            sql.ROOMS.format(types=rows),
            overrides=[
                override("temperature", unit="celsius", decimals=1),
                override("humidity", unit="percent", decimals=0),
                override("dew point", unit="celsius", decimals=1, noValue="-"),
                override("comfort", mappings=COMFORT, custom__displayMode="color-text"),
                override("coldest corner", unit="percent", decimals=0, noValue="-", thresholds=MOULD, **CELL),
            ],
            nothing="nothing was heard in the last five minutes",
        )
    ]
    inside = ", ".join(literal(spec.type) for spec in airs if not spec.outdoors)
    outside = ", ".join(literal(spec.type) for spec in airs if spec.outdoors)
    if inside and outside:
        panels.append(
            panel.timeseries(
                "Coldest corner, by site",
                "Relative humidity in the coldest corner of the worst room of each site. Orange from 70 %, red from"
                " 80 %, where mould begins if it lasts. It comes with the batch job.",
                sql.CORNERS.format(inside=inside, outside=outside),
                interval="1m",
                unit="percent",
                thresholds=MOULD,
                custom__thresholdsStyle={"mode": "line+area"},
                custom__axisSoftMin=0,
                custom__axisSoftMax=100,
            )
        )
    yield Section("Rooms", panels, per_row=2)


def automation(system: System, types: tuple[DeviceType, ...]) -> Iterator[Section]:
    rows = []
    for spec in types:
        for place, (name, metric) in enumerate(spec.metrics.items()):
            said = title_of(spec, name)
            states = ["NULL::text", "NULL::text"]
            if metric.kind == "state":
                words = words_of(name, metric.title)
                states = [literal(words.on), literal(words.off)]
            symbol = f" {UNITS[metric.unit].symbol}".rstrip()
            rows.append(
                [literal(spec.type), literal(name), str(place), literal(said.lower()), literal(symbol), *states]
            )
    yield Section(
        "What is switched or set",
        [
            panel.table(
                "State of each",
                "What each device says of itself at the end of the range.",
                sql.VALUES_NOW.format(metrics=values(rows)),
                nothing="nothing was heard in the last five minutes",
            ),
            panel.table(
                "Commands",
                "What people and rules asked of the system's devices in this range, and what became of it.",
                sql.COMMANDS.format(system=system.name),
                overrides=[override("state", mappings=OBEYED, custom__displayMode="color-text")],
                nothing="no commands in this range",
            ),
        ],
        per_row=2,
    )
