"""Artefacts: the same bytes for the same estimator, and nothing loaded that is not what was stored."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from connections.lake import Lake
from etl.artefact import load, path_of, settled, store
from etl.training import candidates
from fleet.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(200, 4)), RNG.integers(0, 3, 200)
X[::9, 2] = np.nan


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(f"file://{tmp_path}")


NAMES = ("logistic regression", "random forest", "gradient boosting")


def test_these_are_all() -> None:
    assert tuple(candidates()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_candidate_comes_back_as_it_was(lake: Lake, name: str) -> None:
    estimator = candidates()[name].fit(X, Y)
    sha256 = store(lake, "head_count", estimator)
    assert np.array_equal(load(lake, "head_count", sha256).predict(X), estimator.predict(X))
    assert store(lake, "head_count", candidates()[name].fit(X, Y)) == sha256
    assert lake.files("models") == [path_of("head_count", sha256)]


def _gone(lake: Lake, path: str) -> None:
    lake.sweep([path])


def _changed(lake: Lake, path: str) -> None:
    data = bytearray(lake.read(path))
    data[len(data) // 2] ^= 1
    lake.write(path, bytes(data))


def _cut(lake: Lake, path: str) -> None:
    lake.write(path, lake.read(path)[:100])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(_gone, "is gone", id="gone"),
        pytest.param(_changed, "is not what was stored", id="a bit changed"),
        pytest.param(_cut, "is not what was stored", id="cut"),
    ],
)
def test_an_artefact_that_is_not_what_was_stored_is_refused(
    lake: Lake, harm: Callable[[Lake, str], None], words: str
) -> None:
    sha256 = store(lake, "head_count", candidates()["logistic regression"].fit(X, Y))
    harm(lake, path_of("head_count", sha256))
    with pytest.raises(DataError, match=words) as told:
        load(lake, "head_count", sha256)
    assert path_of("head_count", sha256) in str(told.value)


# Their libraries take seconds to load, which only who runs these tests is to wait for.
def _another_function() -> bytes:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    return settled(skops.io.dumps(FunctionTransformer(np.load)))


def _another_type() -> bytes:
    import skops.io
    from sklearn.neighbors import KNeighborsClassifier

    return settled(skops.io.dumps(KNeighborsClassifier().fit(X[:, :2], Y)))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        pytest.param(_another_function, "not trusted: .*load", id="another function"),
        pytest.param(_another_type, "not trusted", id="another type"),
        pytest.param(lambda: b"\x80\x04.", "cannot be read", id="a pickle"),
        pytest.param(lambda: b"", "cannot be read", id="nothing"),
    ],
)
def test_what_is_no_trusted_artefact_is_refused_though_its_name_is_right(
    lake: Lake, made: Callable[[], bytes], words: str
) -> None:
    data = made()
    sha256 = hashlib.sha256(data).hexdigest()
    lake.write(path_of("head_count", sha256), data)
    with pytest.raises(DataError, match=words):
        load(lake, "head_count", sha256)
