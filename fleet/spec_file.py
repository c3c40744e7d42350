"""From YAML text to a DeviceType, with file and line in every error."""

import re
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml._yaml import CParser
from yaml.composer import Composer

from fleet.errors import SpecError
from fleet.nearest import did_you_mean, nearest
from fleet.spec import DeviceType

Path_ = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Loader(Composer, CParser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """PyYAML's safe loader on libyaml's parser, which is eight times faster, but with the composer in Python: the one
    in C overruns its stack, and kills the process, where a text nests 30,000 deep."""

    def __init__(self, text: str):
        CParser.__init__(self, text)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self.anchors: dict[str, yaml.Node] = {}


def _locate(node: yaml.Node, path: Path_, lines: dict[Path_, int], file: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{file}:{line}: a key is a word, not a list or mapping")
            if key.tag == "tag:yaml.org,2002:bool":  # on, off, yes and no are words where they are keys
                key.tag = "tag:yaml.org,2002:str"
            if key.value in seen:
                raise SpecError(f"{file}:{line}: key {key.value!r} stands here and on line {seen[key.value]}; keep one")
            seen[key.value] = line
            lines[(*path, key.value)] = line
            _locate(value, (*path, key.value), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _locate(item, (*path, place), lines, file)


def parse_yaml(text: str, file: str) -> tuple[Any, dict[Path_, int]]:
    """(data, path → line from 1). Raises SpecError where the text is not YAML or has a key twice."""
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise SpecError(f"{file}:1: the file is empty; `weir types new` writes a first one")
        lines: dict[Path_, int] = {}
        _locate(node, (), lines, file)
        data = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SpecError(f"{file}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, OverflowError) as error:  # 2024-13-45, which YAML takes for a date
        raise SpecError(f"{file}:1: not YAML: {error}; quote what is text") from None
    except RecursionError:
        raise SpecError(f"{file}:1: nested too deep") from None
    return data, lines


def without_rules(text: str) -> str:
    """The YAML of a spec, with nothing to alert about."""
    data, _ = parse_yaml(text, "the spec")
    return yaml.safe_dump({key: value for key, value in data.items() if key != "alerts"}, sort_keys=False)


def line_of(path: Path_, lines: dict[Path_, int]) -> int:
    """The line of the path, or of the nearest part of the file that contains it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def load_spec(text: str, file: str) -> DeviceType:
    """One device type from YAML. Raises SpecError with all that is wrong, a line each: file:line: path: problem."""
    data, lines = parse_yaml(text, file)
    if not isinstance(data, dict):
        raise SpecError(f"{file}:1: expected keys such as `type:` and `metrics:`, found {type(data).__name__}")
    return validated(DeviceType, data, lines, file)


def validated(
    model: type[Model], data: Any, lines: dict[Path_, int], file: str, at: Path_ = (), written: Any = None
) -> Model:
    """The data as the model has it. Raises SpecError with file and line; `at` is where the data stands in the file,
    `written` the data as they stand there, if that is what errors are to show: before secrets were filled in."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        inside = {path[len(at) :]: line for path, line in lines.items() if path[: len(at)] == at}
        problems = sorted({p for e in error.errors() for p in _problems(e, data, written, inside, model)})
        raise SpecError("\n".join(f"{file}:{line}: {text}" for line, text in problems)) from None


def _problems(
    error: Any, data: Any, written: Any, lines: dict[Path_, int], model: type[BaseModel]
) -> list[tuple[int, str]]:
    path = _real_path(error["loc"], data, error["type"] == "missing")
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        if not path:  # the checks across parts carry a path of their own on each line
            found = []
            for part in message.splitlines():
                where, _, problem = part.partition(": ")
                inner: Path_ = tuple(int(p) if p.isdigit() else p for p in where.split("."))
                found.append((line_of(inner, lines), f"{where}: {problem}"))
            return found
    else:
        message = _plain(error, path, data, model)
    name = ".".join(map(str, path)) or "the file"
    nameless = ("missing", "extra_forbidden", "union_tag_not_found")
    value = "" if error["type"] in nameless else _found(error["input"] if written is None else _at(path, written))
    return [(line_of(path, lines), f"{name}: {message}{value}")]


def _real_path(location: tuple[str | int, ...], data: Any, is_missing: bool) -> Path_:
    """Pydantic names union branches in its paths; keep what is in the file (and a last key, where that is missing)."""
    path: list[str | int] = []
    here = data
    for place, part in enumerate(location):
        inside = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if inside or (isinstance(here, dict) and part in here):
            path.append(part)
            here = here[part]
        elif is_missing and isinstance(here, dict) and place == len(location) - 1:
            path.append(part)
    return tuple(path)


def _at(path: Path_, data: Any) -> Any:
    for part in path:
        data = data[part]
    return data


def _plain(error: Any, path: Path_, data: Any, model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is required and missing"
    if kind == "extra_forbidden":
        return f"unknown key{_nearest_key(path, data, model)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key, tags = context["discriminator"].strip("'"), context.get("expected_tags") or _tags(path, data, model)
        return f"{key} is one of {tags}{did_you_mean(str(context.get('tag')), _quoted(tags))}"
    if kind == "literal_error":
        expected = context["expected"]
        return f"allowed: {expected}{did_you_mean(str(error['input']), _quoted(expected))}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    return str(error["msg"][0].lower() + error["msg"][1:])


def _nearest_key(path: Path_, data: Any, root: type[BaseModel]) -> str:
    model = _model_at(path[:-1], data, root)
    if model is None:
        return "; remove it"
    keys = [f.alias or name for name, f in model.model_fields.items()]
    return nearest(str(path[-1]), keys, "allowed")


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _model_at(path: Path_, data: Any, root: type[BaseModel]) -> type[BaseModel] | None:
    """The model that what stands at the path is read with. Keys of a dict and places of a list have no model."""
    models: list[type[BaseModel]] = [root]
    is_container = False
    for part in path:
        data = data[part]
        if is_container:
            is_container = False
        else:
            field = next((f for m in models for name, f in m.model_fields.items() if (f.alias or name) == part), None)
            models = _models_of(field.annotation) if field else []
            is_container = isinstance(data, list) or (field is not None and "dict[" in str(field.annotation))
        kind = data.get("kind") if isinstance(data, dict) else None
        if len(models) > 1 and not is_container:
            models = [m for m in models if kind in get_args(m.model_fields["kind"].annotation)]
    return models[0] if models and not is_container else None


def _tags(path: Path_, data: Any, root: type[BaseModel]) -> str:
    field = root.model_fields[str(path[0])]
    kinds = [k for m in _models_of(field.annotation) for k in get_args(m.model_fields["kind"].annotation)]
    return ", ".join(map(repr, kinds))


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in get_args(annotation) for m in _models_of(a)]


def _found(value: Any) -> str:
    text = repr(value)
    return f"; found {text if len(text) <= 80 else text[:77] + '...'}"
