"""The gateway's decisions, the same for every protocol: who sends, whether it may, what becomes of the body.

A reading is answered for when Kafka has it. In a batch each reading stands alone, as messages do on MQTT: the good are
taken, the others are dead letters, and the answer says which. See docs/decisions/0041.
"""

import time
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from fleet.allowance import Allowance
from fleet.catalog import Catalog
from fleet.channels import REJECTED, request_source
from fleet.contract import Intake, Reject
from fleet.errors import Unavailable
from fleet.problem import Refused, problem_of
from fleet.reading import Reading
from fleet.senml import messages_of
from fleet.settings import Settings
from fleet.spec import Adapter
from streaming.admission import Admission
from streaming.badges import Badge, Badges
from streaming.deposit import Deposit
from streaming.entrance import Entrance, Record, letter_of

T = TypeVar("T")

MAX_BODY_BYTES = 1024 * 1024
"""As the MQTT broker's limit of a packet. A single message is limited by the contract, to 256 KiB."""
MAX_READINGS = 1000
"""In one body."""
BYTES_OF_A_READING = 2048
"""Of a device's allowance a body takes a reading for each so many bytes, or as many as it has."""
MAX_BODIES = 8
"""Of one device, that have begun and not all come."""
RETRY_SECONDS = 5
MAX_DEVICES = 200_000
"""Whose last reading and allowance are remembered."""

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Answer(NamedTuple):
    """`problem` None: all was accepted."""

    accepted: int
    problem: dict[str, Any] | None = None


class Tallies:
    def __init__(self) -> None:
        self.accepted: Tally[str] = Tally()
        """Protocol → readings that Kafka confirmed."""
        self.rejected: Tally[tuple[str, str, str]] = Tally()
        """(protocol, reason, device type) → messages whose dead letter Kafka confirmed."""
        self.refused: Tally[tuple[str, str]] = Tally()
        """(protocol, reason) → requests that left nothing."""


class Gate:
    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        admission: Admission,
        badges: Badges,
        deposit: Deposit,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self.settings, self.badges, self.deposit = settings, badges, deposit
        self.tallies = Tallies()
        self.heard: Callable[[Badge], None] = lambda _: None
        """Called when a device's last reading is another."""
        self._catalog, self._admission = catalog, admission
        self._intake, self._entrance = Intake(catalog, Adapter()), Entrance(catalog, admission)
        self._monotonic = monotonic
        self._coming: Tally[tuple[str, str]] = Tally()
        self._allowances: OrderedDict[tuple[str, str], Allowance] = OrderedDict()
        self._last: OrderedDict[tuple[str, str], Reading] = OrderedDict()

    def enter(self, token: str) -> Badge:
        """Raises Refused."""
        return self.badges.of(token, datetime.now(UTC))

    def last(self, badge: Badge) -> Reading | None:
        """The newest reading of the device that came through here and that Kafka has."""
        return self._last.get(badge.device)

    @contextmanager
    def one_more_body(self, badge: Badge) -> Iterator[None]:
        """While it comes. Raises Refused where too many of the device's do."""
        if self._coming[badge.device] >= MAX_BODIES:
            raise Refused("rate_limited", f"{MAX_BODIES} bodies of the device are on their way", 1)
        self._coming[badge.device] += 1
        try:
            yield
        finally:
            self._coming[badge.device] -= 1
            if not self._coming[badge.device]:
                del self._coming[badge.device]

    async def take(self, badge: Badge, body: bytes, protocol: str, is_senml: bool = False) -> Answer:
        """One reading or several, of the badge's device. Raises Refused."""
        now_us = time.time_ns() // 1000
        by_size = max(1, len(body) // BYTES_OF_A_READING)
        self._allow(badge, by_size)  # before it is looked at: a body that is refused has cost as much
        messages, problem = self._messages(badge, body, is_senml, now_us)
        if len(messages) > MAX_READINGS:
            raise Refused("too_many_readings", f"{len(messages):,} readings in one body; at most {MAX_READINGS:,}")
        self._allow(badge, max(0, len(messages) - by_size))
        if not self._admission.may_judge(badge.address.type):
            raise Refused("registry_unavailable", "whether the device is registered is not known yet", RETRY_SECONDS)
        if problem is not None:
            source = request_source(f"{protocol}+senml" if is_senml else protocol, badge.address)
            found: list[Reading | Reject] = [problem]
            records: list[Record] = [(REJECTED, letter_of(problem, source, body, now_us), None)]
        else:
            found, records = self._judge(badge, messages, protocol, now_us)
        try:
            await self.deposit.put(records)
        except Unavailable as error:
            raise Refused("kafka_unavailable", str(error), RETRY_SECONDS) from error
        is_batch = is_senml or body.lstrip()[:1] == b"["
        return self._answer(badge, found, protocol, is_batch and problem is None)

    def _messages(
        self, badge: Badge, body: bytes, is_senml: bool, now_us: int
    ) -> tuple[list[bytes], Reject | None]:  # fmt: skip
        """The body's messages, or why it has none. Raises Refused."""
        spec = self._catalog.types[badge.address.type]
        if is_senml:
            found = messages_of(body, spec, badge.address.device_id, now_us)
            return ([], found) if isinstance(found, Reject) else (found, None)
        if body.lstrip()[:1] != b"[":
            return [body], None

        def malformed(detail: str) -> tuple[list[bytes], Reject]:
            return [], Reject("malformed_json", detail, spec.system, spec.type, spec.version)

        try:
            messages = [bytes(one) for one in _split(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return malformed(str(error)[:200])
        return (messages, None) if messages else malformed("the list is empty")

    def _allow(self, badge: Badge, readings: int) -> None:
        """Raises Refused."""
        rate, now = self.settings.gateway_readings_per_second, self._monotonic()
        burst = max(MAX_READINGS, 10 * rate)
        if (allowance := self._allowances.get(badge.device)) is None:
            allowance = _remember(self._allowances, badge.device, Allowance(burst, now))
        if wait := allowance.take(readings, rate, burst, now):
            raise Refused("rate_limited", f"at most {rate:g} readings a second, {burst:g} at once", wait)

    def _judge(
        self, badge: Badge, messages: list[bytes], protocol: str, now_us: int
    ) -> tuple[list[Reading | Reject], list[Record]]:
        source, address = request_source(protocol, badge.address), badge.address
        found: list[Reading | Reject] = []
        records: list[Record] = []
        for message in messages:
            what, made = self._entrance.pass_on(
                lambda message=message: self._intake.read_payload(address, message, now_us),  # type: ignore[misc]
                source, message, now_us,
            )  # fmt: skip
            found.append(what)
            records += made
        return found, records

    def _answer(self, badge: Badge, found: list[Reading | Reject], protocol: str, is_batch: bool) -> Answer:
        rejects: list[tuple[int | None, Reject]] = []
        newest = self._last.get(badge.device)
        accepted = 0
        for place, one in enumerate(found):
            if isinstance(one, Reject):
                rejects.append((place if is_batch else None, one))
                self.tallies.rejected[protocol, one.reason, one.device_type] += 1
            else:
                accepted += 1
                if newest is None or one.event_time_us >= newest.event_time_us:
                    newest = one
        self.tallies.accepted[protocol] += accepted
        if newest is not None and newest is not self._last.get(badge.device):
            _remember(self._last, badge.device, newest)
            self.heard(badge)
        return Answer(accepted, problem_of(rejects, accepted) if rejects else None)


def _remember(known: OrderedDict[tuple[str, str], T], device: tuple[str, str], what: T) -> T:
    """Who was added first is forgotten first."""
    if len(known) >= MAX_DEVICES:
        known.popitem(last=False)
    known[device] = what
    return what
