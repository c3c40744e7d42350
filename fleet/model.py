"""What is estimated from readings, and from what: one line a model in `MODELS`. How is in etl/, whatever the model.

A model estimates a whole number, its target, for each minute of a site, from what the devices there said in that minute
and shortly before. Nothing of later is ever looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from fleet.nearest import nearest
from fleet.spec import RuledType

Statistic = Literal["mean", "min", "max", "last"]
"""Of the known values that a device has in a minute, as in the table rollups."""


@dataclass(frozen=True)
class Input:
    """A device's metric in the minute, and its mean over each span that ends with it."""

    device: str
    metric: str
    of: Statistic = "mean"
    spans: tuple[timedelta, ...] = ()

    @property
    def feature(self) -> str:
        return f"{self.device}_{self.metric}"

    def trailing(self) -> Iterator[tuple[str, timedelta]]:
        for span in self.spans:
            yield f"{self.feature}_{span // timedelta(minutes=1)}m", span


@dataclass(frozen=True)
class Model:
    """`target` is the truth, which a site may lack. `history` is how far back training looks."""

    name: str
    title: str
    type: str
    target: Input
    inputs: tuple[Input, ...]
    history: timedelta = timedelta(days=90)

    @property
    def features(self) -> tuple[str, ...]:
        """In the order in which the estimator takes them."""
        return tuple(name for i in self.inputs for name in (i.feature, *(trailing for trailing, _ in i.trailing())))

    @property
    def reach(self) -> timedelta:
        """How far before a minute its features look."""
        return max((span for i in self.inputs for span in i.spans), default=timedelta(minutes=1))

    def problems(self, spec: RuledType) -> list[str]:
        """What of it the type does not measure, a line each."""
        return [
            f"the model {self.name} needs {i.metric!r} of {i.device}, which {spec.type} does not measure"
            f"{nearest(i.metric, spec.metrics)}"
            for i in (self.target, *self.inputs)
            if i.metric not in spec.metrics
        ]


TEN_MINUTES, HALF_AN_HOUR = timedelta(minutes=10), timedelta(minutes=30)
# Speech and movement come and go while people stay; light and CO2 say more by how they were for a while. Temperature
# drifts by the hour, and what it was a little before adds nothing.
HEAD_COUNT = Model(
    name="head_count",
    title="Head count",
    type="room_node",
    target=Input("edge", "occupancy", "last"),
    inputs=(
        *(Input(f"s{n}", "temperature") for n in (1, 2, 3, 4)),
        *(Input(f"s{n}", "light", spans=(HALF_AN_HOUR,)) for n in (1, 2, 3, 4)),
        *(Input(f"s{n}", "sound", "max", (TEN_MINUTES, HALF_AN_HOUR)) for n in (1, 2, 3, 4)),
        Input("s5", "co2", spans=(HALF_AN_HOUR,)),
        Input("s5", "co2_slope", "last"),
        *(Input(f"s{n}", "pir", "max", (TEN_MINUTES, HALF_AN_HOUR)) for n in (6, 7)),
    ),
)
MODELS = {model.name: model for model in (HEAD_COUNT,)}
