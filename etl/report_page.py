"""Draws a report's pages, A4: sentences, plots and tables. Only matplotlib, and of it no global state."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from textwrap import wrap
from typing import Any

from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from fleet.duration import rounded_duration
from fleet.findings import findings, headline, performance, words
from fleet.report import Figures, Latency, Series

A4 = (8.27, 11.69)
LEFT, WIDTH = 0.08, 0.86
"""Of the page's width."""
LINE = 0.0145
"""Of the page's height: of a sentence at TEXT points."""
TITLE, HEADING, TEXT, SMALL = 18, 11, 8.5, 7
LETTERS = 112
"""So many fit into a line."""
BOTTOM = 0.05
ROW, PLOT, LOW_PLOT, LEGEND = 0.0135, 0.16, 0.14, 0.013
"""Heights: of a table's row, of plots, of a line of their legends."""
LEGEND_WIDTH, LEGEND_MARK = 225, 21
"""Points: of a legend, and of a column's mark and space."""
LEGEND_BELOW = 0.16
"""Inches between a plot and its legend: room for the axis."""
TABLES = 0.11
"""Where there is less room they are left out: sentences and plots have the worst."""
SEVERITY_COLOURS = {"critical": "#c4162a", "warning": "#ff780a", "info": "#3274d9"}
VALIDATED = {"passed": "#37872d", "failed": "#c4162a"}
COLOURS = ("#3274d9", "#37872d", "#fa6400", "#8f3bb8", "#c4162a", "#e0b400", "#7f7f7f", "#00a0a0", "#a0522d", "#5d9cec")
GREY = "#606060"
NOTHING = "no data in this span"
DATE_FORM = "%d %b"
DATE_FORMS = [(timedelta(days=1), "%H:%M"), (timedelta(days=3), "%d %b %H:%M")]
"""Up to which span."""
STYLE: dict[str, Any] = {
    "pdf.fonttype": 42,  # as text, that is found and copied
    "font.family": "DejaVu Sans", "font.size": SMALL, "axes.titlesize": SMALL + 1, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "xtick.color": GREY,
    "ytick.color": GREY, "legend.frameon": False, "legend.fontsize": SMALL, "axes.linewidth": 0.6,
}  # fmt: skip
Row = Sequence[str]


class Page:
    """Filled from the top."""

    def __init__(self, title: str, subtitle: str, number: int):
        self.figure = Figure(figsize=A4)
        self.y = 0.955
        self._text(title, TITLE, weight="bold")
        self.y -= 0.026
        self._text(subtitle, TEXT, color=GREY)
        self.figure.text(LEFT + WIDTH, 0.02, f"{number}", fontsize=SMALL, color=GREY, ha="right")
        self.y -= 0.022

    def _text(self, text: str, size: float, **how: Any) -> None:
        self.figure.text(LEFT, self.y, text, fontsize=size, va="top", parse_math=False, **how)

    def heading(self, text: str) -> None:
        self.y -= 0.008
        self._text(text, HEADING, weight="bold")
        self.y -= 0.022

    def sentences(self, texts: Sequence[str]) -> None:
        for text in texts:
            for place, line in enumerate(wrap(text, LETTERS)):
                self._text(f"• {line}" if not place else f"   {line}", TEXT)
                self.y -= LINE
            self.y -= 0.002

    def plots(self, count: int, height: float = PLOT, names: Sequence[str] = ()) -> list[Axes]:
        """Side by side; `names` of the longest legend stand below."""
        gap, lines = 0.075, -(-len(names) // legend_columns(names))
        self.y -= LEGEND * lines
        width = (WIDTH - gap * (count - 1)) / count
        bottom = self.y - height + 0.03 + LEGEND * lines
        found = [
            self.figure.add_axes((LEFT + 0.02 + n * (width + gap), bottom, width - 0.02, height - 0.055))
            for n in range(count)
        ]
        self.y -= height
        return found

    def table(self, head: Row, rows: Sequence[Row], widths: Sequence[float], nothing: str = NOTHING) -> None:
        """`widths` are shares; those below 0 are of columns of text. Rows that find no room are told."""
        shares = [abs(width) / sum(map(abs, widths)) for width in widths]
        fit = max(1, int((self.y - BOTTOM) / ROW) - 2)
        shown = [head, *rows[:fit]] if rows else [head, [nothing]]
        if len(rows) > fit:
            shown.append([f"… and {len(rows) - fit:,} more"])
        for place, row in enumerate(shown):
            for column, text in enumerate(row):
                side = "left" if widths[column] < 0 else "right"
                x = LEFT + WIDTH * sum(shares[: column if side == "left" else column + 1])
                how: dict[str, Any] = {"color": GREY} if not place else {}
                self.figure.text(x, self.y, text, fontsize=SMALL + 0.5, va="top", ha=side, parse_math=False, **how)
            self.y -= ROW
        self.y -= 0.008


def of_fleet(figures: Sequence[Figures]) -> Figure:
    first = figures[0]
    page = Page("Report", span_text(first), 1)
    page.heading("Key findings")
    page.sentences([headline(one) for one in figures])
    page.heading("What came, and what it raised")
    left, right = page.plots(2, 0.22, [one.system for one in figures])
    over_time(left, "Values a system", {one.system: _summed(one.values) for one in figures}, first)
    over_time(right, "Alerts fired a system", {one.system: _summed(one.alerts_by_step) for one in figures}, first)
    page.heading("Side by side")
    page.table(
        ("system", "devices", "silent", "readings", "alerts", "anomalies", "bad values", "rejected", "books", "parity"),
        [_row(one) for one in figures],
        (-1.3, 0.8, 0.7, 1.2, 0.9, 1, 1, 0.9, 1, 0.9),
    )
    page.heading("How fast")
    left, right = page.plots(2, 0.22)
    latencies(left, "From an event to the alert", {one.system: one.detection for one in figures})
    latencies(right, "From an event to the message", {one.system: one.notification for one in figures})
    page.sentences([f"{one.system}: {text}" for one in figures if (text := performance(one)[0])])
    return page.figure


def of_findings(one: Figures, number: int) -> Figure:
    page = Page(_title(one), f"Key findings, {span_text(one)}", number)
    page.heading("Key findings")
    page.sentences(findings(one))
    if one.alerts:
        page.heading("Alerts")
        left, right = page.plots(2, names=tuple(SEVERITY_COLOURS))
        kinds = sorted(one.alerts, key=lambda kind: -kind.fired)[:5]
        colours = [SEVERITY_COLOURS[kind.severity] for kind in kinds]
        bars(left, "By kind", {f"{words(kind.rule)} ({words(kind.type)})": kind.fired for kind in kinds}, colours)
        by_severity = {name: one.alerts_by_step[name] for name in SEVERITY_COLOURS if name in one.alerts_by_step}
        over_time(right, "Fired, by severity", by_severity, one, [SEVERITY_COLOURS[name] for name in by_severity])
    if one.energy is not None:
        page.heading("Energy")
        left, right = page.plots(2, names=tuple(one.energy.by_step))
        hogs = one.energy.hogs[:5]
        named = {f"{h.appliance.device}, {h.appliance.site}": h.watt_hours / 1000 for h in hogs}
        bars(left, "Appliances, kWh", named)
        thousands = {name: [(at, value / 1000) for at, value in points] for name, points in one.energy.by_step.items()}
        over_time(right, "Appliances, kWh", thousands, one)
    if page.y < BOTTOM + TABLES:
        return page.figure
    page.heading("Devices with most alerts, and with most anomalies")
    page.table(
        ("device", "site", "alerts", "   of rules"),
        [
            (f"{w.device.device_id} ({words(w.device.type)})", w.device.site, f"{w.alerts:,}", f"   {_few(w.rules)}")
            for w in one.worst[:3]
        ],
        (-2, -0.8, 0.7, -3),
        "no alerts",
    )
    page.table(
        ("device", "site", "anomalies", "   metric"),
        [
            (f"{device.device_id} ({words(device.type)})", device.site, f"{n:,}", f"   {words(metric)}")
            for device, metric, n in one.oddest[:3]
        ],
        (-2, -0.8, 0.7, -3),
        "no anomalies",
    )
    return page.figure


def of_performance(one: Figures, number: int) -> Figure:
    page = Page(_title(one), f"System performance, {span_text(one)}", number)
    page.heading("System performance")
    page.sentences(performance(one))
    page.heading("Throughput and latency")
    left, right = page.plots(2, names=tuple(one.values))
    over_time(left, f"Values {_each(one.step)}, by type", one.values, one)
    latencies(right, "Share of alerts", {"to the alert": one.detection, "to the message": one.notification})
    page.heading("Loss and validation")
    left, right = page.plots(2, LOW_PLOT, names=tuple(one.shares))
    shares(left, "Share that was not loaded", one.shares, one)
    over_time(right, f"Validations {_each(one.step)}", one.validated, one, [VALIDATED[name] for name in one.validated])
    page.heading("What came of what was expected")
    page.table(
        ("type", "devices", "times heard", "by cadence", "share"),
        [
            (
                words(c.type), f"{c.devices:,}", f"{c.heard:,}", "-" if c.expected is None else f"{c.expected:,}",
                f"{100 * c.heard / c.expected:.1f} %" if c.expected else "-",
            )
            for c in one.coverage
        ],
        (-2, 1, 1.2, 1.2, 0.8),
        "no devices",
    )  # fmt: skip
    if page.y < BOTTOM + TABLES:
        return page.figure
    page.heading("Alerts, by kind")
    page.table(
        ("rule", "of type", "severity", "fired", "open", "median"),
        [
            (
                words(k.rule), words(k.type), k.severity, f"{k.fired:,}", f"{k.open:,}",
                "-" if k.median_seconds is None else rounded_duration(timedelta(seconds=k.median_seconds)),
            )
            for k in sorted(one.alerts, key=lambda k: -k.fired)
        ],
        (-2.2, -1.3, -0.8, 0.7, 0.6, 0.8),
        "no alerts",
    )  # fmt: skip
    return page.figure


def over_time(axes: Axes, title: str, series: Mapping[str, Series], of: Figures, colours: Row = COLOURS) -> None:
    """Stacked bars, one a step."""
    axes.set_title(title)
    coloured = {name: colours[place % len(colours)] for place, name in enumerate(series)}
    series = {name: points for name, points in series.items() if points}
    if not series:
        nothing(axes)
        return
    days = of.step / timedelta(days=1)
    under: dict[datetime, float] = {}
    for name, points in series.items():
        moments = [at for at, _ in points]
        bottoms = [under.get(at, 0.0) for at in moments]
        axes.bar(
            [dates.date2num(at) for at in moments], [value for _, value in points], width=days, bottom=bottoms,
            align="edge", label=shown(name).replace("$", r"\$"), color=coloured[name], linewidth=0, antialiased=False,
        )  # fmt: skip
        under |= {at: bottom + value for (at, value), bottom in zip(points, bottoms, strict=True)}
    thousands(axes.yaxis)
    along(axes, series, of)


def shares(axes: Axes, title: str, series: Mapping[str, Series], of: Figures) -> None:
    """A line each, in percent, with a mark for each step."""
    axes.set_title(title)
    if not series:
        nothing(axes)
        return
    for place, (name, points) in enumerate(series.items()):
        moments = [float(dates.date2num(at + of.step / 2)) for at, _ in points]
        axes.plot(moments, [value for _, value in points], marker=".", markersize=3, linewidth=1,
                  label=shown(name), color=COLOURS[place % len(COLOURS)])  # fmt: skip
    most = max(1.0, *(value for points in series.values() for _, value in points))
    axes.set_ylim(-most / 30, most * 1.05)  # a line at 0 is seen whole
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    along(axes, series, of)


def along(axes: Axes, series: Mapping[str, Series], of: Figures) -> None:
    """The axis of time, and the legend below it."""
    axes.set_xlim(float(dates.date2num(of.start)), float(dates.date2num(of.end)))
    span = of.end - of.start
    form = next((text for up_to, text in DATE_FORMS if span <= up_to), DATE_FORM)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=2, maxticks=5, tz=UTC))
    axes.xaxis.set_major_formatter(dates.DateFormatter(form, tz=UTC))
    if len(series) > 1:
        below = -LEGEND_BELOW / (A4[1] * axes.get_position().height)
        axes.legend(ncols=legend_columns(series), loc="upper left", bbox_to_anchor=(-0.05, below), handlelength=1,
                    columnspacing=1, labelspacing=0.3)  # fmt: skip


def shown(name: str) -> str:
    """In a legend, cut where it would be wider."""
    said, room = words(name), LEGEND_WIDTH - LEGEND_MARK
    width = _points(said)
    return said if width <= room else f"{said[: int(len(said) * room / width) - 2]}…"


def legend_columns(names: Iterable[str]) -> int:
    """As many as fit below a plot, three at most."""
    widest = max((_points(shown(name)) for name in names), default=0.0)
    return max(1, min(3, int(LEGEND_WIDTH / (widest + LEGEND_MARK))))


@cache
def _points(text: str) -> float:
    """How wide a legend's text is."""
    font = FontProperties(family=STYLE["font.family"], size=SMALL)
    path = TextPath((0, 0), text.replace("$", r"\$"), prop=font)
    return float(path.get_extents().width) if len(path.vertices) else 0.0


def bars(axes: Axes, title: str, values: Mapping[str, float], colours: Row = COLOURS[:1]) -> None:
    """Horizontal, the first on top; names stand in the plot, above their bars, however long they are."""
    axes.set_title(title)
    if not values:
        nothing(axes)
        return
    places = range(len(values))
    axes.barh(places, list(values.values()), height=0.42, color=[colours[n % len(colours)] for n in places])
    for place, (name, value) in enumerate(values.items()):
        told = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"
        axes.text(0, place - 0.28, f"{name}: {told}", fontsize=SMALL - 0.5, va="bottom", parse_math=False)
    axes.set_ylim(max(len(values), 4) - 0.5, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    thousands(axes.xaxis)


def latencies(axes: Axes, title: str, of: Mapping[str, Latency]) -> None:
    """Which share was there after how many seconds."""
    axes.set_title(title)
    measured = {name: one for name, one in of.items() if one.count}
    if not measured:
        nothing(axes)
        return
    coloured = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(of)}
    for name, one in measured.items():
        axes.plot([max(q, 0.001) for q in one.quantiles], range(101), label=words(name), color=coloured[name])
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())  # where a span is short it would be 2×10²
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.grid(color="#e5e5e5", linewidth=0.5)
    axes.legend(loc="lower right")


def nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0, 0.8, NOTHING, transform=axes.transAxes, color=GREY)


def thousands(axis: Any) -> None:
    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """`1,500`, `20k`, `1.5M`: an axis has little room."""
    for unit, of in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * of or (unit == "M" and abs(value) >= of):
            return f"{value / of:,.12g}{unit}"
    return f"{value:,.12g}"


def span_text(of: Figures) -> str:
    return f"{of.start:%Y-%m-%d %H:%M} to {of.end:%Y-%m-%d %H:%M} UTC"


def _title(of: Figures) -> str:
    return words(of.system).capitalize()


def _each(step: timedelta) -> str:
    return {timedelta(hours=1): "an hour", timedelta(days=1): "a day"}.get(step, "a week")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(words, names[:3])) + more


def _summed(series: Mapping[str, Series]) -> Series:
    found: dict[datetime, float] = {}
    for points in series.values():
        for at, value in points:
            found[at] = found.get(at, 0.0) + value
    return sorted(found.items())


def _row(of: Figures) -> Row:
    books = "no data" if not of.books.partitions else "balance" if not of.books.off_by else f"off {of.books.off_by:,}"
    parity = f"{min(of.parity.percent, 99.9):.1f} %" if of.parity.percent < 100 else "100 %"
    return (
        words(of.system), f"{of.devices:,}", f"{len(of.silent):,}", f"{of.readings:,}", f"{of.fired:,}",
        f"{sum(of.anomalies.values()):,}", f"{sum(of.bad_values.values()):,}", f"{sum(of.rejected.values()):,}", books,
        parity if of.parity.audits else "-",
    )  # fmt: skip
