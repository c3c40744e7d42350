"""Great Expectations in one process: run a type's suite on a frame, and keep its Data Docs.

Results and pages are files under `<home>/validations` and `<home>/data-docs`; the newest KEPT of each type stay.
"""

import contextlib
import fcntl
import functools
import gc
import logging
import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.suite import CRITICAL
from fleet.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

KEPT = 30
"""Each validation rewrites the index from all results that are there, 4 ms of CPU apiece."""
SITE = "weir"


@dataclass(frozen=True)
class Unmet:
    """One expectation that was not met. `unexpected` counts values; 0 where it is about the table."""

    expectation: str
    column: str
    severity: str
    unexpected: int
    observed: str

    def __str__(self) -> str:
        many = f", {self.unexpected:,} values" if self.unexpected else ""
        return (
            f"{self.column or 'table'}: {self.expectation} unmet{many}{': ' + self.observed if self.observed else ''}"
        )


@dataclass(frozen=True)
class Verdict:
    """Of one suite on one frame. `data_docs` is the page's path."""

    rows: int
    evaluated: int
    unmet: tuple[Unmet, ...]
    data_docs: str

    @property
    def success(self) -> bool:
        return not self.critical

    @property
    def critical(self) -> list[Unmet]:
        return [u for u in self.unmet if u.severity == CRITICAL]


class Validator:
    """Suites in, verdicts out. Importing Great Expectations takes 3 to 5 s of CPU, so it happens here."""

    def __init__(self, home: Path):
        self._docs, self._results = home / "data-docs", home / "validations"
        self._docs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        with warnings.catch_warnings(), _without("pyspark"):
            warnings.simplefilter("ignore")
            import great_expectations as gx
            from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

            from etl.data_docs_views import Index, Page, view
        _match_categories_once()
        self._gx = gx
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            data_docs_sites={
                SITE: {
                    "class_name": "SiteBuilder",
                    "show_how_to_buttons": False,
                    "store_backend": _folder(self._docs),
                    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "view": view(Index)},
                    "site_section_builders": {name: {"view": view(Page)} for name in ("expectations", "validations")},
                }
            },
            analytics_enabled=False,
            progress_bars={"globally": False},
        )
        config.stores["validation_results_store"] = {
            "class_name": "ValidationResultsStore",
            "store_backend": _folder(self._results),
        }
        self._context = gx.get_context(mode="ephemeral", project_config=config)
        self._source = self._context.data_sources.add_pandas("lake")
        self._checkpoints: dict[str, Any] = {}

    def validate(self, suite: dict[str, Any], frame: "pd.DataFrame", run_name: str) -> Verdict:
        """Runs the suite, writes its page. `run_name` must be fit for a file's name."""
        name = str(suite["name"])
        checkpoint = self._checkpoints.get(name) or self._add(name, suite)
        run = self._gx.RunIdentifier(run_name=run_name)
        # Builders of the same site, such as mapped tasks, take turns: each rewrites the index from all results.
        with _locked(self._docs / ".lock"), warnings.catch_warnings(), _lazy_copies():
            warnings.simplefilter("ignore")
            result = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=run)
            self._prune(name)
        (key, outcome), *_ = result.run_results.items()
        # What it made of the frame refers to itself and has few objects: Python would leave gigabytes before it looks.
        gc.collect()
        unmet = tuple(_unmet(one) for one in outcome.results if not one.success)
        page = f"{name}/{run_name}/{key.run_id.run_time.strftime('%Y%m%dT%H%M%S.%fZ')}/{key.batch_identifier}.html"
        return Verdict(len(frame), len(outcome.results), unmet, str(self._docs / "validations" / page))

    def _add(self, name: str, suite: dict[str, Any]) -> Any:
        gx, context = self._gx, self._context
        batch = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("piece")
        wanted = gx.ExpectationSuite(**suite)
        # Those that it does not know, or not with these arguments, it leaves out with a word in the log.
        left_out = Counter(one["type"] for one in suite["expectations"])
        left_out -= Counter(one.expectation_type for one in wanted.expectations)
        if left_out:
            raise ConfigurationError(
                f"expectations of {name}: Great Expectations does not know {', '.join(left_out)}, or not with these"
                " arguments"
            )
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(wanted))
        )
        docs = gx.checkpoint.UpdateDataDocsAction(name="data docs", site_names=[SITE])
        self._checkpoints[name] = context.checkpoints.add(
            gx.Checkpoint(name=name, validation_definitions=[definition], actions=[docs], result_format="BASIC")
        )
        return self._checkpoints[name]

    def _prune(self, name: str) -> None:
        """The index is made from all results that are kept, so their number is its cost. Pages follow at the next."""
        folder = self._results / name
        runs = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True) if folder.is_dir() else []
        for old in runs[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Great Expectations loads all of Spark that it finds, an eighth of its import, and works without: frames here
    are pandas'. What is loaded already stays."""
    absent = sys.modules.setdefault(package, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if absent:
            del sys.modules[package]


@functools.cache
def _match_categories_once() -> None:
    """Great Expectations' own metric makes a text of each row and searches that, a third of a validation; of a column
    of categories it is enough to search each category."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.metrics import ColumnValuesMatchRegex
    from great_expectations.expectations.metrics.map_metric_provider import (
        ColumnMapMetricProvider,
        column_condition_partial,
    )

    # It warns of what takes the place of its own, at the definition.
    logging.getLogger("great_expectations.expectations.registry").setLevel(logging.ERROR)

    class OfCategories(ColumnMapMetricProvider):
        condition_metric_name = ColumnValuesMatchRegex.condition_metric_name
        condition_value_keys = ColumnValuesMatchRegex.condition_value_keys

        @column_condition_partial(engine=PandasExecutionEngine)
        def _pandas(cls, column: "pd.Series[Any]", regex: str, **_: Any) -> "pd.Series[bool]":
            if column.dtype != "category":
                return column.astype(str).str.contains(regex)
            matches = column.cat.categories.astype(str).str.contains(regex)
            return type(column)(matches[column.cat.codes], index=column.index)  # there are no nulls among them


@contextlib.contextmanager
def _lazy_copies() -> Iterator[None]:
    """Great Expectations filters the whole frame for each expectation, of which mostly nothing is filtered out."""
    import pandas as pd

    with pd.option_context("mode.copy_on_write", True):
        yield


def _folder(path: Path) -> dict[str, str]:
    return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(path)}


def _unmet(result: Any) -> Unmet:
    config = result.expectation_config
    column = config.kwargs.get("column") or ", ".join(config.kwargs.get("column_list", []))
    raised = result.exception_info or {}
    # Of a metric that could not be computed the information is keyed by the metric.
    messages = [raised] if "exception_message" in raised else [v for v in raised.values() if isinstance(v, dict)]
    told = next((str(m["exception_message"]) for m in messages if m.get("exception_message")), "")
    sample = result.result.get("partial_unexpected_list") or result.result.get("observed_value")
    severity = str(getattr(config.severity, "value", config.severity))
    # What could not be evaluated is not known to be good.
    return Unmet(
        config.type,
        column,
        CRITICAL if told else severity,
        int(result.result.get("unexpected_count") or 0),
        told[:300] or ("" if sample is None else str(sample)[:200]),
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
