"""The sections of the first page: all systems side by side."""

from collections.abc import Iterator

from fleet import panel
from fleet import panel_sql as sql
from fleet.catalog import Catalog
from fleet.dashboard_section import BOOKS, COUNTED_BY, WARNING, metric_rows, severity_numbers
from fleet.panel import GOOD, SEVERITY_COLOURS, Json, Section, override, steps


def side_by_side(catalog: Catalog, link: Json) -> Iterator[Section]:
    systems = sql.values([sql.literal(name)] for name in catalog.systems)
    cell = {"custom__displayMode": "color-background"}
    severities = [override(s, thresholds=steps(GOOD, (1, colour)), **cell) for s, colour in SEVERITY_COLOURS.items()]
    yield Section(
        "Now",
        [
            panel.table(
                "Systems",
                "Each system with its devices, its active alerts, how much of its data was bad in this range, and"
                " whether its books balance. A click on a name opens its dashboard.",
                sql.HEARD.format(metrics=metric_rows(catalog)) + sql.SYSTEMS.format(systems=systems),
                overrides=[
                    override("system", links=[link]),
                    override("silent", thresholds=WARNING, **cell),
                    override("values a minute", decimals=0),
                    *severities,
                    override("books", **BOOKS, **cell),
                ],
            )
        ],
    )
    yield Section(
        "All systems",
        [
            panel.stat(
                "Active alerts, by severity",
                "Alerts that have not resolved, by severity.",
                sql.ALL_ACTIVE_COUNTS,
                overrides=severity_numbers(),
            ),
            panel.stat(
                "Late, duplicate, unreadable",
                "In this range: readings that came too late for the rules, readings that came again, and what could not"
                " be read. Weir's own services count them.",
                sql.OWN_COUNTS,
                overrides=[override("unreadable", thresholds=WARNING)],
            ),
            panel.bars_over_time(
                "Values in the rollups",
                "How many values there are at a time. They come with the batch job: the last quarter of an hour may not"
                " be there yet.",
                sql.ROLLED,
                interval=COUNTED_BY,
            ),
            panel.bars_over_time(
                "Alerts fired", "How many alerts began at a time.", sql.ALL_FIRED, interval=COUNTED_BY
            ),
        ],
        per_row=2,
    )
