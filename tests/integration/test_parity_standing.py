"""What audits that overlap say together: each moment once, as the last that looked at it says. On the real tables."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from sqlalchemy import text

from connections.warehouse import Warehouse
from stack.credentials import login_url
from stack.stack import Stack
from streaming.history import PARITY
from tests.integration.own_database import own_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
"""Of offset 0; from there on an offset a second."""


class Audit(NamedTuple):
    first: int
    end: int
    same: int
    explained: tuple[int, ...] = ()
    """Offsets of its differences."""
    unexplained: tuple[int, ...] = ()
    unlisted: int = 0
    """Unexplained differences beside those, of which no row was written."""
    of: tuple[str, int] = ("meter", 0)
    """Type and Kafka partition."""
    moved: int = 0
    """Seconds that its records were appended later: a topic made anew has its offsets anew."""


NIGHT = Audit(0, 1000, 990, explained=(300,), unexplained=(500, 501))

CASES = {
    "none": ([], []),
    "one": ([NIGHT], [(0, 990, 1, 2)]),
    "days that follow each other": ([NIGHT, Audit(1000, 2000, 50)], [(0, 990, 1, 2), (1000, 50, 0, 0)]),
    "an early one with a difference, then a whole one": (
        [Audit(0, 400, 399, unexplained=(350,)), Audit(0, 1000, 1000)], [(0, 1000, 0, 0)],
    ),
    "a whole one that has the difference too": (
        [Audit(0, 400, 399, unexplained=(350,)), NIGHT], [(0, 990, 1, 2)],
    ),
    "a clean short one hides no bad night": ([NIGHT, Audit(600, 660, 60)], [(0, 990, 1, 2)]),
    "it replaces what it looked at": ([NIGHT, Audit(480, 501, 21)], [(0, 990, 1, 1)]),
    "to the end, and not beyond": ([NIGHT, Audit(480, 500, 20)], [(0, 990, 1, 2)]),
    "a short one that finds the same": (
        [NIGHT, Audit(490, 510, 18, unexplained=(500, 501))], [(0, 990, 1, 0), (490, 18, 0, 2)],
    ),
    "a short one that finds another cause": (
        [NIGHT, Audit(490, 510, 18, explained=(500, 501))], [(0, 990, 1, 0), (490, 18, 2, 0)],
    ),
    "two halves make a whole": (
        [NIGHT, Audit(0, 500, 500), Audit(500, 1000, 500)], [(0, 500, 0, 0), (500, 500, 0, 0)],
    ),
    "three quarters do not": (
        [NIGHT, Audit(0, 450, 450), Audit(700, 1000, 300)], [(0, 990, 0, 2)],
    ),
    "an hour ago, again and again": (
        [Audit(0, 60, 59, unexplained=(10,)), Audit(5, 65, 60), Audit(10, 70, 59, unexplained=(69,))],
        [(0, 59, 0, 0), (5, 60, 0, 0), (10, 59, 0, 1)],
    ),
    "more than are listed stand with their row": (
        [NIGHT._replace(unlisted=7), Audit(450, 550, 100)], [(0, 990, 1, 7)],
    ),
    "another partition and another type have their own": (
        [NIGHT, Audit(0, 1000, 5, of=("meter", 1)), Audit(0, 1000, 6, of=("plug", 0))],
        [(0, 990, 1, 2), (0, 5, 0, 0), (0, 6, 0, 0)],
    ),
    "a topic that was made anew": ([NIGHT, Audit(0, 1000, 7, moved=5000)], [(0, 990, 1, 2), (0, 7, 0, 0)]),
}  # fmt: skip


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[Warehouse]:
    warehouse = Warehouse(own_database(stack, "standing", "weir_history", "weir_batch"), "tests")
    yield warehouse
    warehouse.close()


@pytest.fixture(params=CASES.values(), ids=CASES)
def expected(request: pytest.FixtureRequest, database: Warehouse) -> list[tuple[int, int, int, int]]:
    """Of each row: first offset, same, explained, unexplained."""
    audits, rows = request.param
    with database.transaction() as c:
        c.execute(text("DELETE FROM parity"))
        c.execute(text("DELETE FROM parity_differences"))
        for number, audit in enumerate(audits):
            kind, partition = audit.of
            start, end = (BEGIN + timedelta(seconds=offset + audit.moved) for offset in (audit.first, audit.end))
            key = {"type": kind, "partition": partition, "start": start, "end": end}
            c.execute(
                text(
                    "INSERT INTO parity VALUES ('grid', :type, :partition, :start, :end, :first, :last, 'log', 9,"
                    " :same, :same, :explained, :unexplained, now() + :number * INTERVAL '1 second')"
                ),
                {
                    **key, "first": audit.first, "last": audit.end, "same": audit.same, "number": number,
                    "explained": len(audit.explained), "unexplained": len(audit.unexplained) + audit.unlisted,
                },
            )  # fmt: skip
            for offset in (*audit.explained, *audit.unexplained):
                c.execute(
                    text(
                        "INSERT INTO parity_differences VALUES ('grid', :type, :partition, :start, :end, 't', 'a', 'r',"
                        " 'd', 'firing', :start, :offset, 'unlike', 'unknown', :explained, '')"
                    ),
                    {**key, "offset": offset, "explained": offset in audit.explained},
                )
    return rows  # type: ignore[no-any-return]


def test_each_moment_counts_once(database: Warehouse, stack: Stack, expected: list[tuple[int, int, int, int]]) -> None:
    found = database.rows("SELECT *, extract(epoch FROM starts_at - :begin)::int AS first FROM parity_standing"
                          " ORDER BY starts_at, type, kafka_partition", begin=BEGIN)  # fmt: skip
    assert [(r["first"] % 5000, r["same"], r["explained"], r["unexplained"]) for r in found] == expected
    listed = database.rows("SELECT count(*) AS n FROM parity_differences_standing")[0]["n"]
    assert listed == sum(row[2] + row[3] for row in expected) - (7 if (0, 990, 1, 7) in expected else 0)
    for login in ("weir_history", "weir_batch"):
        published = Warehouse(login_url(login, stack.secrets, stack.ports, "standing"), "tests")
        (sums,) = published.rows(PARITY)
        published.close()
        assert (sums["same"] or 0, sums["explained"] or 0, sums["unexplained"] or 0) == tuple(
            sum(row[n] for row in expected) for n in (1, 2, 3)
        )
