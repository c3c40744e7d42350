"""The end of an error about a name that there is not."""

from collections.abc import Collection, Set
from difflib import get_close_matches


def nearest(name: str, among: Collection[str], all_are: str = "there are") -> str:
    """`; did you mean 'temperature'?`, or else all that there are: `; there are: humidity, temperature`, in the order
    given."""
    ordered = sorted(among) if isinstance(among, Set) else among
    return did_you_mean(name, among) or f"; {all_are}: {', '.join(ordered) or 'none'}"


def did_you_mean(name: str, among: Collection[str]) -> str:
    """Empty where nothing is near. Upper case and lower case are alike."""
    by_case = {other.lower(): other for other in among}
    near = get_close_matches(name.lower(), sorted(by_case), n=1)
    return f"; did you mean {by_case[near[0]]!r}?" if near else ""
