"""A row of a file that somebody gives, as a reading: by the file's own names, as the type's spec maps them, then
through the contract that a device's messages go through. Pure."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from fleet.channels import LEVEL, Address
from fleet.contract import Contract, Reject
from fleet.file_spec import FILE_WORDS
from fleet.local_time import LocalTime
from fleet.nearest import nearest
from fleet.reading import Reading, to_epoch_us
from fleet.site import DEFAULT_SITE
from fleet.spec import Adapter, DeviceType

IGNORED = None
SOURCE = "file/"
"""A dead letter of a row says where it stood: `file/<type>/<name>:<line>`."""


class Refusal(NamedTuple):
    """Why nothing of a file is taken."""

    outcome: str
    detail: str


class FileForm:
    """How files of one type are read."""

    def __init__(self, spec: DeviceType):
        self.spec, self._files = spec, spec.files
        self._zone = LocalTime(spec.files.time_zone).zone
        # Times are read here, as a file may write them in more ways than a device does.
        own = Adapter(form="flat", device_id="device_id", event_time="event_time", seq="seq", event_time_unit="ms")
        self._contract = Contract(spec.model_copy(update={"adapter": own}))
        adapter = spec.adapter
        self.meanings: dict[str, str | None] = {
            "timestamp": "event_time", **{name: name for name in (*spec.metrics, *FILE_WORDS)},
            adapter.device_id: "device_id", adapter.event_time: "event_time", adapter.seq: "seq", **adapter.rename,
            **spec.files.columns,
        }  # fmt: skip
        """The file's names → a metric, device_id, event_time, seq or site; None: not looked at."""

    def problem(self, header: Iterable[str]) -> Refusal | None:
        """What is wrong with the names of a file's columns."""
        names = list(header)
        unknown = next((name for name in names if name not in self.meanings), None)
        if unknown is not None:
            said = f"column {unknown!r} is nothing that {self.spec.type} has{nearest(unknown, list(self.meanings))}"
            return Refusal("unknown_column", f"{said}; `files.columns` in its spec maps names, null is not looked at")
        meanings = [self.meanings[name] for name in names]
        twice = next((m for m in meanings if m is not IGNORED and meanings.count(m) > 1), None)
        if twice is not None:
            return Refusal("unknown_column", f"two columns are {twice}")
        missing = [word for word in ("device_id", "event_time") if word not in meanings]
        if not missing and not set(meanings) & set(self.spec.metrics):
            missing = [f"a metric ({', '.join(self.spec.metrics)})"]
        if missing:
            said = f"no column is {' or '.join(missing)}; there are: {', '.join(names)[:300]}"
            return Refusal("missing_column", f"{said}; `files.columns` in the spec of {self.spec.type} maps names")
        return None

    def read(self, row: Mapping[str, Any], now_us: int, sites: Mapping[tuple[str, str], str]) -> Reading | Reject:
        """`row` by the file's names; cells of CSV are text, and empty ones are not there. A device that is registered
        stands where the registry says, unless the row says otherwise."""
        try:
            return self._read(row, now_us, sites)
        except RecursionError:  # of a line of JSON: more can be read than written
            return self._reject("malformed_json", "it nests too deep")

    def _read(self, row: Mapping[str, Any], now_us: int, sites: Mapping[tuple[str, str], str]) -> Reading | Reject:
        message: dict[str, Any] = {}
        for name, cell in row.items():
            meaning = self.meanings.get(name, name)
            if meaning is IGNORED or cell == "":
                continue
            message[meaning] = self._cell(meaning, cell)
        device, site = str(message.get("device_id", "")), message.pop("site", None)
        site = site or sites.get((self.spec.type, device)) or self._files.site or DEFAULT_SITE
        if not isinstance(site, str) or not LEVEL.fullmatch(site):
            return self._reject("bad_id", f"site {site!r:.80}; letters, digits and _ . : - , at most 64")
        address = Address(self.spec.system, site, self.spec.type, device)
        return self._contract.read(json.dumps(message).encode(), address, now_us)

    def _cell(self, meaning: str, cell: Any) -> Any:
        if meaning == "event_time":
            return self._time(cell)
        if meaning == "seq":
            return _whole(cell) if isinstance(cell, str) else cell
        if meaning not in self.spec.metrics:
            return cell
        number = _number(cell) if isinstance(cell, str) else cell
        scale = self._files.scale.get(meaning)
        if scale is None or isinstance(number, bool) or not isinstance(number, int | float):
            return number
        try:
            return number * scale.factor + scale.offset
        except OverflowError:  # too large for a float: the contract takes it for unknown
            return number

    def _time(self, cell: Any) -> Any:
        """Epoch milliseconds; what is no time stays as it is, and the contract says so."""
        form, unit = self._files.time_format, self.spec.adapter.event_time_unit
        try:
            if form is None or form in ("s", "ms"):
                number = _number(cell) if isinstance(cell, str) else cell
                if isinstance(number, int | float) and not isinstance(number, bool):
                    return round(number * (1000 if (form or unit) == "ms" else 1_000_000)) / 1000
                moment = datetime.fromisoformat(cell)
            else:
                moment = datetime.strptime(str(cell), form)
            return to_epoch_us(moment if moment.tzinfo else moment.replace(tzinfo=self._zone)) / 1000
        except (ValueError, TypeError, OverflowError):
            return cell

    def _reject(self, reason: str, detail: str) -> Reject:
        return Reject(reason, detail, self.spec.system, self.spec.type, self.spec.version)


def _whole(text: str) -> int | str:
    """A whole number, or the text as it was."""
    try:
        return int(text) if text.removeprefix("-").isdecimal() else text
    except ValueError:  # Python reads none of thousands of digits
        return text


def _number(text: str) -> Any:
    """A number, a truth value, or the text as it was."""
    low = text.strip().lower()
    if low in ("true", "false"):
        return low == "true"
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def source_of(type_name: str, file: str, line: int) -> str:
    return f"{SOURCE}{type_name}/{file}:{line}"
