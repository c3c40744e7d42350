"""What becomes of a message before it is in Kafka, whatever it came by: bridge and gateway share it."""

import logging
from collections.abc import Callable

from fleet.catalog import Catalog
from fleet.channels import REJECTED, parts_of
from fleet.contract import Reject
from fleet.control import key_of
from fleet.dead_letter import dead_letter_of_message, encode_dead_letter
from fleet.reading import Reading, encode_reading
from streaming.admission import Admission

MAX_REQUEST_BYTES = 3_000_000
"""A dead letter of the largest message that is let in (1 MiB), in base64, and room."""

Record = tuple[str, bytes, bytes | None]
"""Topic, value and key."""

log = logging.getLogger("weir.entrance")


def read_safely(read: Callable[[], Reading | Reject], source: str) -> Reading | Reject:
    """A defect of ours must not stop the messages behind this one."""
    try:
        return read()
    except Exception as error:
        log.exception("source=%s the contract failed", source[:200])
        return Reject("contract_error", f"{type(error).__name__}: {error}"[:500])


def letter_of(reject: Reject, source: str, payload: bytes, now_us: int) -> bytes:
    """Goes to `readings.rejected`, without a key."""
    return encode_dead_letter(dead_letter_of_message(reject, source, payload, now_us))


class Entrance:
    """For messages that carry a whole reading: to records for Kafka."""

    def __init__(self, catalog: Catalog, admission: Admission):
        self._types, self._admission = catalog.types, admission

    def pass_on(
        self, read: Callable[[], Reading | Reject], source: str, payload: bytes, now_us: int
    ) -> tuple[Reading | Reject, list[Record]]:
        """What it is, and the records that say so."""
        found = read_safely(read, source)
        if isinstance(found, Reading):
            found = self._admission.check(found) or found
        if isinstance(found, Reject):
            return found, [(REJECTED, letter_of(found, source, payload, now_us), None)]
        spec = self._types[found.device_type]
        key = key_of(spec, found.device_id, found.site).encode()
        parts = [(encode_reading(part), topics) for part, topics in parts_of(spec, found)]
        return found, [(topic, value, key) for value, topics in parts for topic in topics]
