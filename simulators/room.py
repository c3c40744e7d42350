"""People in one room with seven sensor nodes: their coming and going drives CO2, light, sound, motion and temperature.

Magnitudes are those of the real recording (simulators/occupancy_recording.py): empty 0.06 V, 25.3 °C and about
390 ppm; three people up to 29 °C, 1,250 ppm and 280 lux. Desk n stands beside node sn; s4 stands apart.
"""

import math
import random
from collections import deque
from collections.abc import Iterator
from datetime import timedelta

from fleet.errors import ConfigurationError
from fleet.reading import Reading
from fleet.spec import DeviceType

NODES = 7
DESKS = 3
MESSAGES_A_ROUND = 17
OPENING_HOUR, CLOSING_HOUR = 8.5, 18.5
FIRST_HOUR = 10.0
"""The room's own clock at the start of a run: not the wall's, so that a seed always gives the same room."""
MINUTES_AWAY, MINUTES_IN, MINUTES_TO_LEAVE = 40, 70, 10
"""Means: between visits, of a visit, and of staying on after closing."""

OUTDOOR_PPM, PPM_A_PERSON_A_MINUTE, AIRING_MINUTES = 390.0, 6.0, 45.0
SLOPE_SAMPLES = 25
"""s5 reports the least-squares slope, in ppm a sample, of its last 25 samples; so does the recording, exactly."""
LAMP_LUX = ((120, 25, 20, 8), (15, 170, 30, 8), (10, 30, 130, 12))
"""What the lamp of each desk gives to s1-s4."""
DAYLIGHT_LUX = (15, 14, 60, 45)
QUIET_VOLT = (0.07, 0.05, 0.06, 0.08)
VOICE_VOLT = ((0.40, 0.08, 0.05, 0.03), (0.12, 0.45, 0.15, 0.08), (0.10, 0.15, 0.60, 0.10))
EMPTY_CELSIUS = (25.2, 25.2, 24.8, 25.5)
WARMTH_CELSIUS = ((0.7, 0.5, 0.3, 0.2), (0.3, 1.8, 0.4, 0.2), (0.2, 0.5, 0.8, 0.3))
WARMING_MINUTES = 40.0


class Room:
    """The room's state; `step` moves it on by some minutes."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.minute = FIRST_HOUR * 60
        self.present = [place == 0 for place in range(DESKS)]
        self.co2_ppm = OUTDOOR_PPM
        self.celsius = list(EMPTY_CELSIUS)
        self.co2_samples: deque[float] = deque(maxlen=SLOPE_SAMPLES)

    @property
    def hour(self) -> float:
        return self.minute / 60 % 24

    @property
    def people(self) -> int:
        return sum(self.present)

    def step(self, minutes: float) -> None:
        self.minute += minutes
        is_open = OPENING_HOUR <= self.hour < CLOSING_HOUR
        for desk in range(DESKS):
            mean = (MINUTES_IN if is_open else MINUTES_TO_LEAVE) if self.present[desk] else MINUTES_AWAY
            changes = self.rng.random() < -math.expm1(-minutes / mean)
            if changes and (is_open or self.present[desk]):
                self.present[desk] = not self.present[desk]
        # Exact solutions of the two relaxations, so that a long step is as good as many short ones.
        full = OUTDOOR_PPM + PPM_A_PERSON_A_MINUTE * AIRING_MINUTES * self.people
        self.co2_ppm = full + (self.co2_ppm - full) * math.exp(-minutes / AIRING_MINUTES)
        stay = math.exp(-minutes / WARMING_MINUTES)
        for node, empty in enumerate(EMPTY_CELSIUS):
            target = empty + 0.2 * self._daylight() + self._sum(WARMTH_CELSIUS, node)
            self.celsius[node] = target + (self.celsius[node] - target) * stay

    def _daylight(self) -> float:
        """0 at night, 1 at noon."""
        return max(0.0, math.sin((self.hour - 7) / 10 * math.pi)) if 7 < self.hour < 17 else 0.0

    def _sum(self, table: tuple[tuple[float, ...], ...], node: int) -> float:
        return sum(row[node] for row, there in zip(table, self.present, strict=True) if there)

    def sense(self) -> Iterator[tuple[str, str, float]]:
        """(device, metric, value): what the nodes say now, and the truth, which the edge node knows."""
        rng = self.rng
        for node in range(4):  # a thermometer with steps of 1/16 °C
            yield f"{node + 1}", "temperature", round(round(self.celsius[node] * 16 + rng.gauss(0, 0.3)) / 16, 2)
        for node in range(4):
            lux = self._sum(LAMP_LUX, node) + DAYLIGHT_LUX[node] * self._daylight()
            yield f"{node + 1}", "light", float(max(0, round(lux * rng.gauss(1, 0.02))))
        for node in range(4):
            voice = self._sum(VOICE_VOLT, node)
            volt = QUIET_VOLT[node] + (rng.expovariate(1 / voice) if voice else 0) + rng.uniform(-0.01, 0.01)
            yield f"{node + 1}", "sound", round(min(3.9, max(0.0, volt)), 2)
        ppm = 5.0 * round((self.co2_ppm + rng.gauss(0, 1.5)) / 5)
        self.co2_samples.append(ppm)
        yield "5", "co2", ppm
        yield "5", "co2_slope", round(_slope(self.co2_samples), 12)
        yield "6", "pir", float(rng.random() < (0.35 if self.people else 0.002))
        yield "7", "pir", float(rng.random() < (0.45 if any(self.present[1:]) else 0.03 if self.people else 0.001))
        yield "edge", "occupancy", float(self.people)


def _slope(samples: deque[float]) -> float:
    """Least squares, in units a sample. A window that is not yet full counts as having been flat."""
    padded = [samples[0]] * (SLOPE_SAMPLES - len(samples)) + list(samples)
    middle = (SLOPE_SAMPLES - 1) / 2
    return sum((x - middle) * y for x, y in enumerate(padded)) / sum((x - middle) ** 2 for x in range(SLOPE_SAMPLES))


def room_readings(
    spec: DeviceType, *, site: str, devices: int, cadence: timedelta, first_us: int, seed: int, with_seq: bool = False
) -> Iterator[Reading]:
    """Readings of one metric each, without end: a round of 17 every `cadence`.

    Raises ConfigurationError for a number of devices that the room does not have.
    """
    if devices != NODES:
        raise ConfigurationError(f"the room has {NODES} devices, not {devices}; leave --devices out")
    prefix = spec.simulation.device_prefix if spec.simulation else "s"
    gateway = spec.simulation.gateway if spec.simulation else "edge"
    room = Room(random.Random(f"{seed}/{spec.type}"))  # noqa: S311
    step_us = cadence // timedelta(microseconds=1)
    sent: dict[str, int] = {}
    turn = 0
    while True:
        time_us = first_us + turn * step_us // 1000 * 1000
        for node, metric, value in room.sense():
            device_id = gateway if node == "edge" else prefix + node
            sent[device_id] = sent.get(device_id, 0) + 1
            seq = sent[device_id] if with_seq else None
            yield Reading(device_id, spec.type, site, time_us, {metric: value}, seq, spec.version)
        room.step(cadence / timedelta(minutes=1))
        turn += 1
