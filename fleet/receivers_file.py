"""From the text of `receivers.yaml` to a ReceiversFile, with file and line in every error. Secrets do not stand in the
file: `${NAME}` is filled in from what the caller knows, and never shown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import SecretStr

from fleet.errors import SpecError
from fleet.receivers import Options, ReceiversFile
from fleet.spec_file import Path_, line_of, parse_yaml, validated

REFERENCE = re.compile(r"\$\{([^}]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRETS_FILE = "var/env/dispatcher.env"
NAMING = ("routes", "default", "escalate", "to")
"""Keys under which names of receivers stand."""


def _secret_options() -> dict[str, set[str]]:
    """Kind → the names of its options that are secrets."""
    kinds = {}
    for model in get_args(get_args(Options)[0]):
        (kind,) = get_args(model.model_fields["kind"].annotation)
        kinds[kind] = {n for n, f in model.model_fields.items() if SecretStr in (f.annotation, *get_args(f.annotation))}
    return kinds


SECRET_OPTIONS = _secret_options()


def load_receivers(text: str, file: str, known: Mapping[str, str]) -> ReceiversFile:
    """Raises SpecError with all that is wrong, a line each. `known`: what `${NAME}` may refer to."""
    if not re.sub(r"(?m)^\s*(#.*)?$", "", text).strip():
        return ReceiversFile()
    written, lines = parse_yaml(text, file)
    if not isinstance(written, dict):
        raise SpecError(f"{file}:1: expected `receivers:` and `routes:`, found {type(written).__name__}")
    problems = [(line_of(path, lines), f"{'.'.join(map(str, path))}: {said}") for path, said in _plain_secrets(written)]
    data = _filled_in(_present(written, known), (), known, lines, problems)
    if problems:
        raise SpecError("\n".join(f"{file}:{line}: {said}" for line, said in sorted(problems)))
    return validated(ReceiversFile, data, lines, file, written=written)


def _plain_secrets(written: dict[str, Any]) -> list[tuple[Path_, str]]:
    receivers = written.get("receivers")
    found: list[tuple[Path_, str]] = []
    for name, options in receivers.items() if isinstance(receivers, dict) else ():
        if not isinstance(options, dict):
            continue
        for key in SECRET_OPTIONS.get(str(options.get("kind")), set()) & set(options):
            values = options[key] if isinstance(options[key], list) else [options[key]]
            if any(not REFERENCE.search(str(value)) for value in values if value):
                found.append(
                    (("receivers", name, key),
                     f"a secret does not stand in this file; write ${{NAME}} here and NAME=… into {SECRETS_FILE}")
                )  # fmt: skip
    return found


def _present(written: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """What is written, but for receivers without a value of what their `only_with` names."""
    receivers = written.get("receivers")
    if not isinstance(receivers, dict):
        return written
    needs = {name: str(o["only_with"]) for name, o in receivers.items() if isinstance(o, dict) and "only_with" in o}
    absent = [name for name, needed in needs.items() if NAME.fullmatch(needed) and not known.get(needed)]
    if not absent:
        return written
    return {**_unnamed(written, absent), "receivers": {n: o for n, o in receivers.items() if n not in absent}}


def _unnamed(value: Any, absent: Sequence[str]) -> Any:
    """Routes, steps or names, without those."""
    if isinstance(value, dict):
        return {key: _unnamed(part, absent) if key in NAMING else part for key, part in value.items()}
    if isinstance(value, list):
        return [_unnamed(part, absent) for part in value if part not in absent]
    return [] if value in absent else value


def _filled_in(
    value: Any, path: Path_, known: Mapping[str, str], lines: dict[Path_, int], problems: list[tuple[int, str]]
) -> Any:
    if isinstance(value, dict):
        return {key: _filled_in(v, (*path, key), known, lines, problems) for key, v in value.items()}
    if isinstance(value, list):
        return [_filled_in(v, (*path, place), known, lines, problems) for place, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in known:
            return known[name]
        said = (
            f"${{{name}}} is not set; write {name}=… into {SECRETS_FILE}"
            if NAME.fullmatch(name)
            else f"${{{name}}} is no name; a name is letters, digits and _"
        )
        problems.append((line_of(path, lines), f"{'.'.join(map(str, path))}: {said}"))
        return ""

    return REFERENCE.sub(fill, value)
