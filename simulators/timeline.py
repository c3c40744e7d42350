"""Event time against wall time: a run covers a span that ends now, faster than real time, then goes on at real time."""

from dataclasses import dataclass

from fleet.errors import ConfigurationError


@dataclass(frozen=True)
class Timeline:
    """Times are epoch µs. Within the span no event time is due before its wall time: at wall time `started + s/speed`
    the event `first + s` is due, and both clocks meet at the span's end. Speed 0 does not wait at all."""

    first_us: int
    span_us: int
    started_us: int
    speed: float

    @classmethod
    def ending(cls, span_us: int, started_us: int, speed: float, until_us: int | None = None) -> "Timeline":
        """`until_us`: the last event time, in place of the moment at which the run ends. Whole ms, as devices' clocks.

        Raises ConfigurationError for a speed between 0 and 1: event times would run away from the clock.
        """
        if speed != 0 and not 1 <= speed < float("inf"):
            raise ConfigurationError(f"--speed {speed:g}: 1 is real time, 100 a hundred times that, 0 without waiting")
        wall_us = span_us / speed if speed else 0
        end_us = until_us if until_us is not None else started_us + round(wall_us)
        return cls((end_us - span_us) // 1000 * 1000, span_us, started_us, speed)

    @property
    def end_us(self) -> int:
        return self.first_us + self.span_us

    def wall_us(self, event_us: int) -> int:
        """When an event is to be sent. Beyond the span at real time, whatever the speed."""
        offset = event_us - self.first_us
        beyond = max(0, offset - self.span_us)
        within = offset - beyond
        return self.started_us + (round(within / self.speed) if self.speed else 0) + beyond
