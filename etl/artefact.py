"""Estimators as files of the lake, named by their content: `models/<name>/<sha256>.skops`.

skops, and no pickle: loading runs no code but the constructors of types that are listed here. The same estimator always
gives the same bytes, so that training again on the same data is seen to be the same model.
"""

import hashlib
import io
import json
import zipfile
from typing import Any

from connections.lake import Lake
from fleet.errors import DataError

TRUSTED = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""What etl.training's candidates consist of, beside what skops takes for harmless by itself."""
EPOCH = (1980, 1, 1, 0, 0, 0)


def path_of(name: str, sha256: str) -> str:
    return f"models/{name}/{sha256}.skops"


def store(lake: Lake, name: str, estimator: Any) -> str:
    """Its sha256. What is there already stays."""
    import skops.io

    data = settled(skops.io.dumps(estimator))
    sha256 = hashlib.sha256(data).hexdigest()
    lake.put_if_absent(path_of(name, sha256), data)
    return sha256


def load(lake: Lake, name: str, sha256: str) -> Any:
    """Raises DataError where the file is gone, is not what was stored, or has types that are not trusted."""
    path = path_of(name, sha256)
    try:
        data = lake.read(path)
    except FileNotFoundError:
        raise DataError(f"the artefact {lake.url(path)} is gone; train anew, or promote another model") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DataError(
            f"the artefact {lake.url(path)} is not what was stored (its sha256 is {found[:12]}…): it is not loaded;"
            " remove it and train anew, or promote another model"
        )
    return opened(data, lake.url(path))


def opened(data: bytes, place: str) -> Any:
    import skops.io

    try:
        strangers = sorted(set(skops.io.get_untrusted_types(data=data)) - {*TRUSTED})
        if strangers:
            raise DataError(f"the artefact {place} has types that are not trusted: {', '.join(strangers)}; not loaded")
        return skops.io.loads(data, trusted=TRUSTED)
    except DataError:
        raise
    except Exception as error:  # skops raises whatever its nodes do: KeyError, TypeError, BadZipFile, …
        raise DataError(f"the artefact {place} cannot be read: {type(error).__name__}: {error}") from error


def settled(data: bytes) -> bytes:
    """The same artefact without what differs from run to run: times, and addresses in memory that serve as names."""
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        schema = json.loads(given.read("schema.json"))
        names: dict[str, str] = {}
        ids: dict[int, int] = {}
        _renumber(schema, ids, names)
        files = {new: given.read(old) for old, new in names.items()}
    files["schema.json"] = json.dumps(schema).encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as made:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, content)
    return sink.getvalue()


def _renumber(node: Any, ids: dict[int, int], names: dict[str, str]) -> None:
    if isinstance(node, list):
        for item in node:
            _renumber(item, ids, names)
    elif isinstance(node, dict):
        if isinstance(node.get("__id__"), int):
            node["__id__"] = ids.setdefault(node["__id__"], len(ids))
        if "__loader__" in node and isinstance(node.get("file"), str):
            old = node["file"]
            node["file"] = names.setdefault(old, f"{len(names)}.{old.rpartition('.')[2]}")
        for value in node.values():
            _renumber(value, ids, names)
