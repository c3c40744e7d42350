"""A model's night: train on what is loaded, keep the artefact, promote it if it is better, let the champion estimate.
Airflow and `weir models` call the same functions.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from connections.spark import session
from etl import artefact, derive, features, kernel, kernel_task, models, training
from etl.features import Array, Loaded, Minutes, loaded, no_minutes, read_minutes
from etl.lake_index import read_index
from etl.run import Job
from etl.training import BASELINES, a_minute_ago, estimates, lacking, split, train
from etl.window import OPEN, Window
from fleet import model as definitions
from fleet import promotion
from fleet.errors import ConfigurationError, DataError
from fleet.model import Model
from fleet.nearest import nearest
from fleet.promotion import Comparison, Score, blocks_of, compare, score, undecidable, verdict
from fleet.spec import DeviceType

SCORED = timedelta(days=14)
"""How far back the champion estimates each night what it was not trained on: what came late is in it then."""


@dataclass(frozen=True)
class Outcome:
    """What became of it, in words and figures. `model_id` None: nothing was trained."""

    name: str
    said: str
    model_id: str | None = None
    promoted: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)


def retrain(job: Job, name: str, now: datetime) -> Outcome:
    """Raises Unavailable where somebody else is at it. Too little data is an outcome and no error."""
    model, spec = _defined(job, name)
    with job.warehouse.transaction() as c:
        models.only_retrain(c, name)
        data, minutes = _minutes(job, model, spec, Window(now - model.history, None))
        parts = split(minutes)
        if why := lacking(parts):
            waiting = f"; {data.waiting} partitions wait for sensor_etl" if data.waiting else ""
            return Outcome(name, why + waiting)
        found = train(parts.training)
        sha256 = artefact.store(job.lake, name, found.estimator)
        model_id = sha256[: models.ID_LENGTH]
        known = [row for row in models.rows(job.warehouse, name) if row["sha256"] == sha256]
        if known:
            # Not judged again: whoever rolled back from it would find it promoted the next night.
            return Outcome(name, f"the same model as {model_id} of {known[0]['trained_at']:%Y-%m-%d %H:%M}", model_id)
        champion = models.champion(job.warehouse, name)
        estimate = estimates(found.estimator, parts.holdout, found.columns)
        comparisons, gone, undecided = _against(job, model, champion, parts, estimate)
        better, why = (False, undecided) if undecided else verdict(comparisons)
        told = score(parts.holdout.truth, estimate)
        row = {
            "model_id": model_id, "name": name, "system": spec.system, "type": spec.type, "sha256": sha256,
            "algorithm": found.algorithm, "libraries": {"scikit-learn": _library()},
            "features": [model.features[i] for i in found.columns],
            "code_version": code_version(), "spec_version": spec.version, "data_digest": data.digest,
            "trained_from": _moment(parts.training.at[0]), "trained_to": _moment(parts.training.at[-1]),
            "trained_on": len(parts.training), "holdout_from": _moment(parts.holdout.at[0]),
            "holdout_to": _moment(parts.holdout.at[-1]), "accuracy": told.accuracy, "f1": told.f1,
            "metrics": {
                "holdout": asdict(told),
                "baselines": {n: _brief(score(parts.holdout.truth, of(parts))) for n, of in BASELINES.items()},
                "a_minute_ago": _brief(score(parts.holdout.truth, a_minute_ago(parts))),
                "comparisons": [asdict(comparison) for comparison in comparisons],
                "candidates": {n: None if math.isnan(f1) else f1 for n, f1 in found.chosen_by.items()},
                "partitions": len(data.partitions), "waiting": data.waiting,
            },
            "verdict": f"{why}{gone}", "parent": champion["model_id"] if champion else None,
        }  # fmt: skip
        models.add(c, row)
        if better:
            models.promote(c, row)
    said = f"{model_id} is {'' if better else 'not '}promoted: {row['verdict']}"
    return Outcome(name, said, model_id, better, {"accuracy": told.accuracy, "f1": told.f1, "minutes": told.minutes})


def _against(
    job: Job, model: Model, champion: Mapping[str, Any] | None, parts: training.Split, estimate: Array
) -> tuple[list[Comparison], str, str]:
    """With the baselines and the champion; why there is none with the champion, as it estimates nothing any more; and
    why nothing can be decided. Of the champion only minutes count that it was not trained on either."""
    holdout = parts.holdout
    block = blocks_of(holdout.site, holdout.at)
    found = [compare(holdout.truth, estimate, of(parts), block, n) for n, of in BASELINES.items()]
    if why := undecidable(holdout.truth, block):
        return found, "", f"undecided, as not enough is held out: {why}"
    if champion is None:
        return found, "", ""
    try:
        theirs = ask(job, model, champion, holdout)
    except DataError as error:
        return found, f"; not compared with the champion, which estimates nothing any more: {error}", ""
    fresh = holdout.at > features.as_numpy(champion["trained_to"])
    part, against = holdout.where(fresh), f"the champion {champion['model_id']}"
    of_part = blocks_of(part.site, part.at)
    if why := undecidable(part.truth, of_part):
        return found, "", f"undecided: {against} was trained on most of what would decide, and left {why}"
    return [*found, compare(part.truth, estimate[fresh], theirs[fresh], of_part, against)], "", ""


def score_model(
    job: Job, name: str, now: datetime, row: Mapping[str, Any] | None = None, window: Window = OPEN
) -> Outcome:
    """What a model estimates of the loaded minutes goes to `predictions`, by default of those that it was not trained
    on: the champion, or the newest candidate while there is none, unless another is given. Again is the same rows."""
    model, spec = _defined(job, name)
    if row is None:
        row = next(iter(models.rows(job.warehouse, name)), None)
    if row is None:
        return Outcome(name, "no model yet: nothing to estimate with")
    start = window.start or max(row["holdout_from"], now - SCORED)
    end = window.end or now
    data, minutes = _minutes(job, model, spec, Window(start, end))
    value = ask(job, model, row, minutes)
    spans = [(max(p.partition.start, start), min(p.partition.end, end)) for p in data.partitions]
    with job.warehouse.transaction() as c:
        models.replace_predictions(c, row, minutes, value, [(s, e) for s, e in spans if s < e])
    known = ~np.isnan(minutes.truth)
    figures: dict[str, Any] = {"minutes": len(minutes), "with truth": int(known.sum())}
    if known.any():
        told = score(minutes.truth[known], value[known])
        figures |= {"accuracy": told.accuracy, "f1": told.f1}
    who = "the champion" if row["champion"] else "a candidate"
    return Outcome(name, f"{who} {row['model_id']} estimated {len(minutes):,} minutes", row["model_id"], False, figures)


@dataclass(frozen=True)
class Duel:
    comparison: Comparison
    ours: Score
    theirs: Score


def compare_models(job: Job, ours: Mapping[str, Any], theirs: Mapping[str, Any], now: datetime) -> Duel:
    """On the loaded minutes that neither was trained on. Raises DataError where these are too few."""
    if ours["name"] != theirs["name"]:
        raise ConfigurationError(
            f"{ours['model_id']} is a model of {ours['name']}, {theirs['model_id']} of {theirs['name']}"
        )
    model, spec = _defined(job, ours["name"])
    start = max(row["trained_to"] for row in (ours, theirs)) + timedelta(minutes=1)
    _, minutes = _minutes(job, model, spec, Window(start, now))
    minutes = minutes.where(~np.isnan(minutes.truth))
    block = blocks_of(minutes.site, minutes.at)
    if why := undecidable(minutes.truth, block):
        raise DataError(f"since {start:%Y-%m-%d %H:%M}, up to which one of them was trained, there are {why}")
    a, b = (ask(job, model, row, minutes) for row in (ours, theirs))
    comparison = compare(minutes.truth, a, b, block, theirs["model_id"])
    return Duel(comparison, score(minutes.truth, a), score(minutes.truth, b))


def ask(job: Job, model: Model, row: Mapping[str, Any], minutes: Minutes) -> Array:
    """A stored model's estimates. Raises DataError where it can give none any more."""
    estimator = opened(job, model, row)
    return estimates(estimator, minutes, [model.features.index(name) for name in row["features"]])


def opened(job: Job, model: Model, row: Mapping[str, Any]) -> Any:
    """The estimator of a stored model. Raises DataError where its features, its library or its artefact are gone."""
    gone = [name for name in row["features"] if name not in model.features]
    if gone:
        raise DataError(
            f"{row['model_id']} estimates from {gone[0]!r}, which {model.name} no longer has"
            f"{nearest(gone[0], model.features)}; train anew"
        )
    if row["libraries"]["scikit-learn"] != _library():
        raise DataError(
            f"{row['model_id']} was made with scikit-learn {row['libraries']['scikit-learn']}, here is {_library()};"
            " train anew"
        )
    return artefact.load(job.lake, row["name"], row["sha256"])


def code_version() -> str:
    """Of what makes features and trains: changes with it, and with nothing else."""
    parts = (definitions, kernel, kernel_task, derive, features, training, promotion)
    text = b"".join(Path(str(part.__file__)).read_bytes() for part in parts)
    return hashlib.sha256(text).hexdigest()[: models.ID_LENGTH]


def _defined(job: Job, name: str) -> tuple[Model, DeviceType]:
    model = models.model_of(name)
    spec = job.catalog.type(model.type)
    if problems := model.problems(spec):
        raise ConfigurationError("\n".join(problems))
    return model, spec


def _minutes(job: Job, model: Model, spec: DeviceType, window: Window) -> tuple[Loaded, Minutes]:
    """Those of the window, with features that look back beyond its start."""
    ledger = job.warehouse.rows(
        "SELECT partition, files_digest FROM ledger WHERE type = :type AND status = 'loaded'", type=spec.type
    )
    index = read_index(job.lake)
    digests = {row["partition"]: row["files_digest"] for row in ledger}
    wide = Window(window.start - model.reach if window.start else None, window.end)
    data = loaded(index.partitions.values(), digests, spec, wide)
    if not data.partitions:
        return data, no_minutes(model)
    with session(job.settings, f"weir-model-{model.name}") as spark:
        minutes = read_minutes(spark, job.lake, spec, model, data.partitions)
    return data, minutes.between(window.start, window.end)


def _moment(at: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(at.astype("datetime64[s]").astype(np.int64)), UTC)


def _brief(told: Score) -> dict[str, float]:
    return {"accuracy": told.accuracy, "f1": told.f1, "mean_error": told.mean_error}


def _library() -> str:
    import sklearn

    return str(sklearn.__version__)
