"""Which alerts a route or a maintenance window is about."""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BeforeValidator, Field

from fleet.alert_labels import labels_of
from fleet.nearest import did_you_mean
from fleet.notification import TellingAlert
from fleet.rule import Severity, Strict


def listed(value: object) -> object:
    """`weather` is `[weather]`."""
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(listed), Field(min_length=1)]
"""A word or a list of them."""
AnyNames = Annotated[tuple[str, ...], BeforeValidator(listed)]


class Selection(Strict):
    """All that it names must fit. Of a list of words any may fit; in a word `*` stands for anything."""

    system: AnyNames = ()
    site: AnyNames = ()
    type: AnyNames = ()
    rule: AnyNames = ()
    device: AnyNames = ()
    severity: Annotated[tuple[Severity, ...], BeforeValidator(listed)] = ()
    labels: dict[str, AnyNames] = {}
    """As every receiver sees them, by name. One that the alert has not is the empty text."""

    def takes(self, alert: TellingAlert) -> bool:
        named = ("system", "site", "type", "rule", "device", "severity")
        wanted: Mapping[str, tuple[str, ...]] = {name: getattr(self, name) for name in named}
        return all(_fits(getattr(alert, name), words) for name, words in wanted.items() if words) and all(
            _fits(labels_of(alert).get(name, ""), words) for name, words in self.labels.items()
        )

    def fitting_nothing(self, known: Mapping[str, Collection[str]]) -> list[str]:
        """Words that fit none of what there is, by key: such a selection takes no alert of today's."""
        return [
            f"{name}: none fits {word!r}{did_you_mean(word, among)}"
            for name, among in known.items()
            for word in getattr(self, name)
            if not any(_fits(one, (word,)) for one in among)
        ]


def _fits(found: str, words: tuple[str, ...]) -> bool:
    return any(fnmatchcase(found, word) for word in words)
