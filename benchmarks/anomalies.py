"""What was tried beside the anomalies that the batch flags, on the same readings: docs/decisions/0033.

    python benchmarks/anomalies.py ../shared/data/nab

- seasonal: robust z-score against the values of the same hour of day (or of the week) of the 28 days before, of seven
  at least (three of the week's hour)
- forest: isolation forest, made anew each day (of the machine) or hour (of simulated devices) from what came before;
  a value is flagged where its score is among the lowest thousandth of those it was made from
- folder: robust z-score within the folder; both by the median absolute deviation (as Weir had it) and as it is now
- unseen: as the batch has it, with other lengths of the past, shares of hours left out, and room beyond
- threshold: limits from the rows that the benchmark does not count

Figures: of the machine the benchmark's score; of simulated devices anomalies, precision, and recall of spikes.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from etl import kernel
from fleet.anomaly import LEAST_DAYS
from fleet.backtest import Episode, Truth, score
from fleet.catalog import load_catalog
from fleet.nab import probation
from fleet.nab import score as nab_score
from fleet.settings import Settings
from simulators.simulation import plan_parts
from weir import _anomaly_faults as faults
from weir import _anomaly_nab as nab

DAYS, LIMITS = 28, (3.5, 5.0, 6.0, 8.0)
MAD_TO_SIGMA = 1 / NormalDist().inv_cdf(0.75)
LOWEST = 0.001
SEEDS = range(3)
HOUR = pd.Timedelta(hours=1)


def mad(values: pd.Series) -> float:
    """Where half of the values are equal, by the mean deviation."""
    off = (values - values.median()).abs()
    return MAD_TO_SIGMA * off.median() or kernel.MEAN_DEVIATION_TO_SIGMA * off.mean()


def tails(values: pd.Series) -> float:
    """As the batch does within a folder."""
    _, sigma = kernel._medians_and_deviations(values.to_numpy(float), np.array([len(values)]))
    return sigma[0]


DEVIATIONS: dict[str, Callable[[pd.Series], float]] = {"mad": mad, "tails": tails}


def seasonal(
    frame: pd.DataFrame, slot: pd.Series, least_days: int, deviation: Callable[[pd.Series], float]
) -> np.ndarray:
    """z of each row of a series with columns at, value; NaN where it has no history or that does not vary."""
    day = frame["at"].dt.floor("D")
    z = np.full(len(frame), np.nan)
    for _, places in frame.groupby(slot.to_numpy()).indices.items():
        values, days = frame["value"].iloc[places], day.iloc[places]
        for today in days.unique():
            past = values[(days < today) & (days >= today - pd.Timedelta(days=DAYS))]
            if days[past.index].nunique() >= least_days:
                sigma, now = deviation(past), (days == today).to_numpy()
                z[places[now]] = (values[now] - past.median()) / sigma if sigma > 0 else np.nan
    return z


def unseen(frame: pd.DataFrame, reach: int, trim: float, room: float) -> np.ndarray:
    """Which rows are flagged."""
    hours = frame.groupby(frame["at"].dt.floor("h"))["value"].agg(["min", "max"])
    day, found = frame["at"].dt.floor("D"), np.zeros(len(frame), bool)
    for today in day.unique():
        past = hours[(hours.index < today) & (hours.index >= today - pd.Timedelta(days=reach))]
        if past.index.floor("D").nunique() >= LEAST_DAYS:
            low = np.quantile(past["min"], trim, method="inverted_cdf")
            high = np.quantile(past["max"], 1 - trim, method="inverted_cdf")
            beyond = ~frame["value"].between(low - room * (high - low), high + room * (high - low))
            found |= (beyond & (day == today)).to_numpy()
    return found


def forest(features: np.ndarray, period: np.ndarray, reach: int, seed: int = 0) -> np.ndarray:
    """Which rows are flagged. Of each period by those up to `reach` periods before."""
    found = np.zeros(len(features), bool)
    for now in np.unique(period)[1:]:
        past = features[(period < now) & (period >= now - reach)]
        made = IsolationForest(random_state=seed).fit(past)
        here = period == now
        found[here] = made.score_samples(features[here]) < np.quantile(made.score_samples(past), LOWEST)
    return found


def machine(folder: Path) -> Iterator[tuple[str, float]]:
    for name, recording in nab._recordings(folder):
        frame = pd.DataFrame({"at": recording.times, "value": recording.values})
        value, at, rows = frame["value"], frame["at"].dt, len(frame)
        before = value[: probation(rows)]

        def told(what: str, flagged: np.ndarray, name: str = name, recording: nab.Recording = recording,
                 rows: int = rows) -> tuple[str, float]:  # fmt: skip
            alarms = nab._alarms(np.flatnonzero(flagged).tolist(), recording.times)
            return f"{name} {what}", nab_score(alarms, recording.windows, rows)

        for limit in (4, 5, 6, 8):
            yield told(f"threshold mean ± {limit} sd", (value - before.mean()).abs() > limit * before.std())
            yield told(f"threshold median ± {limit} MAD", (value - before.median()).abs() > limit * mad(before))
        for reach in (14, DAYS, 56):
            for trim, room in ((0, 0), (0, 0.1), (0.01, 0), (0.01, 0.05), (0.01, 0.1), (0.01, 0.2), (0.02, 0)):
                yield told(f"unseen {reach} d, {trim} out, {room} room", unseen(frame, reach, trim, room))
        slots = {"day": (at.hour, 7), "week": (at.dayofweek * 24 + at.hour, 3)}
        for kind, (slot, least) in slots.items():
            for by, deviation in DEVIATIONS.items():
                z = np.abs(seasonal(frame, slot, least, deviation))
                for limit in LIMITS:
                    yield told(f"seasonal hour of {kind} {by}, z > {limit:g}", z > limit)
        turn = 2 * np.pi * at.hour / 24
        features = np.column_stack([value, value.diff().fillna(0), np.sin(turn), np.cos(turn)])
        day = (frame["at"].dt.floor("D") - frame["at"].dt.floor("D").min()).dt.days.to_numpy()
        for seed in SEEDS:
            yield told(f"forest, seed {seed}", forest(features, day, DAYS, seed))


def simulated(name: str, readings: int, since: pd.Timedelta) -> tuple[pd.DataFrame, dict[str, list[Truth]]]:
    """Values, good ones alone, and the faults from `since` on. As `weir anomalies score` has them."""
    catalog = load_catalog(Settings.load().types_dir)
    spec = catalog.type(name)
    messages, _ = faults._messages(catalog, spec, readings, 0)
    begin_us = int((pd.Timestamp(faults.FIRST) + since).timestamp() * 1e6)
    truths = {
        kind: [t for t in some if t.begin_us >= begin_us] for kind, some in faults._truths(spec, messages).items()
    }
    table = faults._table(spec, messages).to_pandas()
    long = table.melt(["device_id", "event_time"], [*spec.metrics], "metric", "value").dropna(subset="value")
    bounds = {metric: m.range for metric, m in spec.metrics.items() if m.range}
    good = long["value"].between(long["metric"].map({m: r.low for m, r in bounds.items()}).fillna(-np.inf),
                                 long["metric"].map({m: r.high for m, r in bounds.items()}).fillna(np.inf))  # fmt: skip
    gauges = long["metric"].isin([metric for metric, m in spec.metrics.items() if m.kind == "gauge"])
    found = long[good & gauges].rename(columns={"event_time": "at"})
    return found.sort_values(["device_id", "metric", "at"], ignore_index=True), truths


def figures(flagged: pd.DataFrame, truths: dict[str, list[Truth]], key: Callable[[pd.Series], str]) -> str:
    times = flagged["at"].astype("int64") // (1000 if str(flagged["at"].dtype).startswith("datetime64[ns") else 1)
    names = flagged.apply(key, axis=1) if len(flagged) else []
    found = [Episode("x", name, "s", "info", at, at, at) for name, at in zip(names, times, strict=True)]
    precision = score(found, [t for some in truths.values() for t in some]).precision
    recall = score(found, truths["spike"]).recall
    return f"{len(found):,} anomalies, precision {precision or 0:.1%}, of spikes {recall or 0:.1%}"


def by_season(name: str, days: int) -> Iterator[tuple[str, str]]:
    """The last two days of so many."""
    catalog = load_catalog(Settings.load().types_dir)
    (part,) = plan_parts([catalog.type(name)])
    since = pd.Timedelta(days=days - 2)
    values, truths = simulated(name, round(days * 86_400 * part.rate), since)
    late = values["at"] >= pd.Timestamp(faults.FIRST) + since
    series = values.groupby(["device_id", "metric"], sort=False)
    for by, deviation in DEVIATIONS.items():
        z = np.concatenate([seasonal(of, of["at"].dt.hour, 7, deviation) for _, of in series])
        for limit in LIMITS:
            flagged = values[late & (np.abs(z) > limit)]
            yield f"{name} seasonal hour of day {by}, z > {limit:g}", figures(flagged, truths, _series)
    folders = values.groupby(["device_id", "metric", values["at"].dt.floor("h")], sort=False)["value"]
    for by, deviation in DEVIATIONS.items():
        off = (values["value"] - folders.transform("median")).abs() / folders.transform(deviation)
        for limit in LIMITS:
            flagged = values[late & np.isfinite(off) & (off > limit)]
            yield f"{name} folder {by}, z > {limit:g}", figures(flagged, truths, _series)


def by_forest(name: str, readings: int, apart: list[str], together: list[str], reach: int) -> tuple[str, str]:
    """From the second hour on, by up to `reach` hours before. A row for each time and `apart`, with all that is of
    `together`."""
    values, truths = simulated(name, readings, HOUR)
    wide = values.pivot_table(index=["at", *apart], columns=together, values="value").dropna()
    at = wide.index.get_level_values("at")
    flagged = wide.index.to_frame(index=False)[
        forest(wide.to_numpy(), ((at - pd.Timestamp(faults.FIRST)) // HOUR).to_numpy(), reach)
    ]
    of_rows = {k: [t._replace(device=t.device.split()[0] if apart else "") for t in some] for k, some in truths.items()}
    return f"{name} forest", figures(flagged, of_rows, lambda row: row["device_id"] if apart else "")


def _series(row: pd.Series) -> str:
    return faults._series(row["device_id"], row["metric"])


def main() -> None:
    for what, value in machine(Path(sys.argv[1])):
        print(f"{what:70} {value:6.1f}", flush=True)
    print(*by_forest("weather_station", 100_000, ["device_id"], ["metric"], 1), flush=True)
    print(*by_forest("room_node", 100_000, [], ["device_id", "metric"], 24), flush=True)
    for what, said in by_season("room_node", 10):
        print(what, said, flush=True)


if __name__ == "__main__":
    main()
