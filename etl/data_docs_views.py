"""Great Expectations' pages by templates that are compiled once in a process. Its own views compile all fifty for each
page that they build: a third of a validation."""

from typing import Any

from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket


class _InMemory(BytecodeCache):
    def __init__(self) -> None:
        self._compiled: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._compiled:
            bucket.bytecode_from_string(self._compiled[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._compiled[bucket.key] = bucket.bytecode_to_string()


COMPILED = _InMemory()


class Page(DefaultJinjaPageView):
    def __init__(self, **directories: Any):
        super().__init__(**directories)
        self.env.bytecode_cache = COMPILED


class Index(DefaultJinjaIndexPageView):
    def __init__(self, **directories: Any):
        super().__init__(**directories)
        self.env.bytecode_cache = COMPILED


def view(kind: type[Page] | type[Index]) -> dict[str, str]:
    """As a site's configuration names it."""
    return {"module_name": __name__, "class_name": kind.__name__}
