"""The end of an error about a name that there is not."""

from collections.abc import Collection
from difflib import get_close_matches


def nearest(name: str, among: Collection[str]) -> str:
    near = get_close_matches(name, sorted(among), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(among)) or 'none'}"
