"""`weir models`: what was trained, which one estimates, and why."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir._alert_rows import plain
from weir._table import AsJson, aligned

if TYPE_CHECKING:
    from connections.warehouse import Warehouse
    from etl.retrain import Outcome

models = typer.Typer(
    no_args_is_help=True, help="Models that estimate from readings: trained nightly, promoted if better."
)

Name = Annotated[str, typer.Argument(help="A model of fleet/model.py.")]
ModelId = Annotated[str, typer.Argument(help="The model's id, or the beginning of it.")]
From = Annotated[str | None, typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -1h (ago); UTC.")]
To = Annotated[str | None, typer.Option("--to", help="As --from; the first moment to leave out.")]


def register(app: typer.Typer) -> None:
    app.add_typer(models, name="models")


@models.command("list")
def list_(
    name: Annotated[str | None, typer.Option(help="Of one model of fleet/model.py.")] = None, as_json: AsJson = False
) -> None:
    """All that were trained: the champions first, then the newest. Accuracy and F1 are of the minutes held out."""
    from etl import models as stored

    if name:
        stored.model_of(name)
    found = stored.rows(_warehouse(), name)
    if as_json:
        typer.echo(json.dumps(found, default=plain))
        return
    head = ("model", "id", "", "algorithm", "trained", "on data to", "accuracy", "F1")
    shown = [
        (row["name"], row["model_id"], "champion" if row["champion"] else "", row["algorithm"],
         _minute(row["trained_at"]), _minute(row["trained_to"]), f"{row['accuracy']:.3f}", f"{row['f1']:.3f}")
        for row in found
    ]  # fmt: skip
    typer.echo("\n".join(aligned([head, *shown])) if found else "no model was trained yet; `weir models retrain` does")


@models.command()
def show(model_id: ModelId, as_json: AsJson = False) -> None:
    """All that is known of one: its data, what it was compared with, and why it is (not) the champion."""
    from etl import models as stored
    from etl.artefact import path_of

    row = stored.find(_warehouse(), model_id)
    if as_json:
        typer.echo(json.dumps(row, default=plain))
        return
    metrics = row["metrics"]
    made_with = {
        "code": row["code_version"], row["type"]: f"version {row['spec_version']}", "data": row["data_digest"],
        "scikit-learn": row["libraries"]["scikit-learn"],
    }  # fmt: skip
    lines = [
        ("model", f"{row['name']} {row['model_id']}, {_standing(row)}"),
        ("verdict", row["verdict"]),
        ("algorithm", f"{row['algorithm']}; F1 within the training minutes: {_figures(metrics['candidates'])}"),
        ("trained", f"{_span(row, 'trained')}, {row['trained_on']:,} minutes"),
        ("held out", f"{_span(row, 'holdout')}, {metrics['holdout']['minutes']:,} minutes"),
        ("on these", _brief(metrics["holdout"])),
        *((name, _brief(told)) for name, told in metrics["baselines"].items()),
        ("a minute ago", f"{_brief(metrics['a_minute_ago'])} (who has that truth needs no model)"),
        ("parent", row["parent"] or "none"),
        ("replaced", row["replaced"] or "none"),
        ("artefact", path_of(row["name"], row["sha256"])),
        ("made with", ", ".join(f"{what} {which}" for what, which in made_with.items())),
        ("features", ", ".join(row["features"])),
    ]
    typer.echo("\n".join(aligned(lines)))
    counts = metrics["holdout"]["counts"]
    typer.echo("\ntruth (down) and estimate (across), minutes")
    table = [[str(c), *map(str, of)] for c, of in zip(counts, metrics["holdout"]["confusion"], strict=True)]
    typer.echo("\n".join(aligned([["", *map(str, counts)], *table])))


@models.command()
def retrain(
    name: Annotated[str, typer.Option(help="One model of fleet/model.py, or all.")] = "all", as_json: AsJson = False
) -> None:
    """What the DAG retrain_nightly does: train on what is loaded, promote what is better, estimate."""
    from etl.retrain import retrain as train_anew
    from etl.retrain import score_model
    from fleet.model import MODELS
    from weir.etl import open_job

    job, now = open_job(), datetime.now(UTC)
    for one in MODELS if name == "all" else [name]:
        for outcome in (train_anew(job, one, now), score_model(job, one, now)):
            _tell(outcome, as_json)


@models.command()
def score(
    name: Name,
    model_id: Annotated[str | None, typer.Option("--model", help="Another than the champion, by its id.")] = None,
    start: From = None, to: To = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Estimate loaded minutes and write them beside the truth; by default those that it was not trained on."""
    from etl import models as stored
    from etl.retrain import score_model
    from etl.window import parse_window
    from weir.etl import open_job

    job, now = open_job(), datetime.now(UTC)
    row = stored.find(job.warehouse, model_id, name) if model_id else None
    _tell(score_model(job, name, now, row, parse_window(start, to, now)), as_json)


@models.command()
def compare(ours: ModelId, theirs: ModelId, as_json: AsJson = False) -> None:
    """Two models on the loaded minutes that neither was trained on, and whether one is better by more than noise."""
    from etl import models as stored
    from etl.retrain import compare_models
    from weir.etl import open_job

    job = open_job()
    left, right = (stored.find(job.warehouse, model_id) for model_id in (ours, theirs))
    duel = compare_models(job, left, right, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(asdict(duel)))
        return
    told = duel.comparison
    scores = [(row["model_id"], _brief(asdict(of))) for row, of in ((left, duel.ours), (right, duel.theirs))]
    typer.echo("\n".join(aligned(scores)))
    word = (
        "better by more than noise"
        if told.low > 0
        else "worse by more than noise"
        if told.high < 0
        else "no more than noise"
    )
    typer.echo(f"{told}: {word}, over {told.minutes:,} minutes in {told.blocks} stretches")


@models.command()
def promote(model_id: ModelId) -> None:
    """Make a model the champion, whatever it was found to be. It must still be able to estimate."""
    from etl import models as stored
    from etl.retrain import opened
    from weir.etl import open_job

    job = open_job()
    row = stored.find(job.warehouse, model_id)
    opened(job, stored.model_of(row["name"]), row)
    with job.warehouse.transaction() as c:
        before = stored.promote(c, row)
    if before == row["model_id"]:
        typer.echo(f"{before} is the champion of {row['name']} already")
    else:
        typer.echo(f"{row['model_id']} is the champion of {row['name']}; before: {before or 'none'}")


@models.command()
def rollback(name: Name) -> None:
    """Make the champion before the present one the champion again."""
    from etl import models as stored
    from etl.retrain import opened
    from weir.etl import open_job

    job, model = open_job(), stored.model_of(name)
    with job.warehouse.transaction() as c:
        back, gone = stored.roll_back(c, name)
        opened(job, model, stored.find(job.warehouse, back))
    typer.echo(f"{back} is the champion of {name} again; {gone} is not")


def _warehouse() -> "Warehouse":
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    return Warehouse.of(Settings.load(role="operator"))


def _standing(row: dict[str, Any]) -> str:
    if row["champion"]:
        return f"the champion since {_minute(row['promoted_at'])}"
    return f"promoted {_minute(row['promoted_at'])}, no longer the champion" if row["promoted_at"] else "not promoted"


def _tell(outcome: "Outcome", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
        return
    figures = f" ({_figures(outcome.figures)})" if outcome.figures else ""
    typer.echo(f"{outcome.name}: {outcome.said}{figures}")


def _figures(figures: Any) -> str:
    told = {n: "-" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for n, v in figures.items()}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _brief(told: dict[str, Any]) -> str:
    return f"accuracy {told['accuracy']:.3f}, F1 {told['f1']:.3f}, off by {told['mean_error']:.3f} in the mean"


def _span(row: dict[str, Any], of: str) -> str:
    return f"{_minute(row[f'{of}_from'])} to {_minute(row[f'{of}_to'])}"


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
