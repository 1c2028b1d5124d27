"""Figures of how good predictions are: the reliability diagram, and differences between networks."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray
from scipy import stats

from imlenet_jax.evaluation.calibration import Reliability
from imlenet_jax.evaluation.comparison import METRICS

INK = "#222222"
# Told apart in grey print too, by the marker.
STYLES = ({"color": "#355f8d", "marker": "o"}, {"color": "#d1662c", "marker": "s", "linestyle": "--"})


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def draw_reliability(
    curves: Mapping[str, Reliability], classes: Sequence[str], title: str, shown: Sequence[str] | None = None
) -> Figure:
    """A panel per class: observed share against mean probability of each bin, with 95 % Wilson intervals.

    `curves` are one or two, by name; of many classes only those to be `shown` are drawn. The bars below are the share of the records in each bin, of the first.
    """
    shown = classes if shown is None else shown
    columns = min(3 if len(shown) < 10 else 4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.5 * rows + 0.9), layout="constrained")
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, name in zip(panels, shown, strict=False):
        place = classes.index(name)
        panel.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        shares = next(iter(curves.values())).records[place]
        panel.bar(
            (np.arange(shares.size) + 0.5) / shares.size,
            0.25 * shares / shares.sum(),
            0.9 / shares.size,
            color="#dddddd",
        )
        for shift, (label, curve), style in zip((-0.005, 0.005), curves.items(), STYLES, strict=False):
            filled = curve.records[place] > 0
            x, y, n = (array[place][filled] for array in (curve.predicted, curve.observed, curve.records))
            low, high = wilson_interval(y, n)
            panel.errorbar(
                x + shift, y, [y - low, high - y], capsize=2, linewidth=1.2, markersize=4, label=label, **style
            )
        errors = ", then ".join(f"{curve.ece[place]:.3f}" for curve in curves.values())
        panel.set_title(f"{name}   ECE {errors}", fontsize=10, parse_math=False)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for panel in panels[len(shown) :]:
        panel.axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", fontsize=9, frameon=False)
    figure.supxlabel("mean probability of the bin; grey bars: share of the records in it, times 0.25", fontsize=9)
    figure.supylabel("share of these records that have the class", fontsize=9)
    return figure


def wilson_interval(share: NDArray, n: NDArray, level: float = 0.95) -> tuple[NDArray, NDArray]:
    """Bounds of a probability of which `share` of `n` trials came true (Wilson 1927)."""
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def draw_comparison(report: Mapping[str, Any]) -> Figure:
    """The differences of `compare` from the first network: a panel per metric, a row per network, 95 % intervals."""
    networks = list(report["differences"][METRICS[0]])
    figure = Figure(figsize=(8.5, len(METRICS) * (0.55 + 0.28 * len(networks)) + 1.1), layout="constrained")
    figure.suptitle(f"Differences from {report['baseline']}, {report['n']:,} records", parse_math=False)
    for panel, name in zip(figure.subplots(len(METRICS), 1, sharex=True), METRICS, strict=True):
        panel.axvline(0, color=INK, linestyle=":", linewidth=1)
        for place, entry in enumerate(report["differences"][name].values()):
            if entry["low"] is None:
                continue
            _mark(panel, place, entry, entry)
        panel.set_yticks(range(len(networks)), networks, fontsize=8, parse_math=False)
        panel.set(ylim=(len(networks) - 0.4, -0.6))
        better = "lower is better" if name == "mean_brier" else "higher is better"
        panel.set_title(f"{name} ({better})", fontsize=9, loc="left")
    figure.supxlabel("difference, 95 % interval of a paired bootstrap; filled: zero lies outside", fontsize=9)
    return figure


def _mark(panel: Axes, place: int, entry: Mapping[str, Any], gap: Mapping[str, Any] | None) -> None:
    """A value and its interval in a row of a panel; filled where the interval of a difference leaves zero out."""
    clear = gap is not None and (gap["low"] > 0 or gap["high"] < 0)
    panel.plot([entry["low"], entry["high"]], [place, place], color="#355f8d", linewidth=1.6)
    panel.plot(entry["value"], place, "o", color="#355f8d", markersize=6, fillstyle="full" if clear else "none")


def draw_labels(counts: pd.DataFrame, together: NDArray, title: str) -> Figure:
    """Left, how many records have each class, a point per split; right, with which other classes these come together.

    `counts` has a row per class and a column per split, `together` (C, C) is how many records have both classes.
    """
    size = len(counts)
    side = max(4.0, 0.19 * size + 1.2)
    figure = Figure(figsize=(side + 5.5, side + 0.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, side / 4.5))
    places = np.arange(size)
    styles = (
        {"color": "#355f8d", "marker": "o"},
        {"color": "#d1662c", "marker": "s"},
        {"color": "#4d7c3f", "marker": "^"},
    )
    for (name, column), style in zip(counts.items(), styles, strict=True):
        held = column.to_numpy() > 0
        left.plot(column.to_numpy()[held], places[held], linestyle="", markersize=4, label=f"{name} folds", **style)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.xaxis.set_minor_formatter("")
    left.set_yticks(places, counts.index, fontsize=8, parse_math=False)
    left.set(xlim=(0.7, None), xlabel="records (no point: none)")
    left.grid(color="#dddddd", linewidth=0.5)
    left.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, columnspacing=0.8)
    own = np.maximum(np.diag(together), 1)[:, None]
    image = right.imshow(together / own, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    right.set_xticks(places, counts.index, fontsize=8, rotation=90, parse_math=False)
    right.set_ylim(size - 0.5, -0.5)
    bar = figure.colorbar(image, ax=right, shrink=0.6)
    bar.set_label("share of the row's records that have the column's class, too", fontsize=8)
    return figure


def draw_groups(report: Mapping[str, Any], shown: Sequence[str], title: str) -> Figure:
    """The AUC in groups: a row of panels per column that was asked for, the mean first, then each class `shown`.

    `report` is of `evaluate_groups`, with one group at least that has metrics. Beside a mean of fewer classes than there are
    stands of how many. A filled point's difference to all other records has an interval without zero.
    """
    columns = {
        column: {name: group for name, group in groups.items() if group["metrics"] is not None}
        for column, groups in report["by"].items()
    }
    columns = {column: groups for column, groups in columns.items() if groups}
    heights = [0.9 + 0.26 * len(groups) for groups in columns.values()]
    figure = Figure(figsize=(2.6 + 1.9 * (1 + len(shown)), sum(heights) + 1.0), layout="constrained")
    figure.suptitle(title, parse_math=False, fontsize=11)
    grid = figure.subplots(
        len(columns), 1 + len(shown), sharex=True, sharey="row", squeeze=False, height_ratios=heights
    )
    for line, (column, groups) in zip(grid, columns.items(), strict=True):
        for panel, label in zip(line, [None, *shown], strict=True):
            for place, group in enumerate(groups.values()):
                auc = group["metrics"].get("macro_auc") if label is None else group["metrics"]["class_auc"][label]
                if auc is None or auc["low"] is None:
                    continue
                _mark(panel, place, auc, auc["difference"])
                if label is None and len(group["classes"]) < len(group["positives"]):
                    text, above = f"{len(group['classes'])} of {len(group['positives'])}", (0, 4)
                    panel.annotate(
                        text, (auc["value"], place), above, textcoords="offset points", ha="center", fontsize=7
                    )
            panel.grid(color="#dddddd", linewidth=0.5, axis="x")
        names = [f"{name}  n={group['n']:,}" for name, group in groups.items()]
        line[0].set_yticks(range(len(groups)), names, fontsize=8, parse_math=False)
        line[0].set(ylim=(len(groups) - 0.5, -0.5))
        line[0].set_ylabel(column, fontsize=9, parse_math=False)
    for panel, label in zip(grid[0], ["mean of classes", *shown], strict=True):
        panel.set_title(label, fontsize=9, parse_math=False)
    figure.supxlabel(
        f"AUC, 95 % bootstrap interval; filled: the difference to all other records leaves zero out; no point: under "
        f"{report['fewest_of_class']} records with or without the class",
        fontsize=8,
    )
    return figure


def draw_leaderboard(report: Mapping[str, Any], title: str) -> Figure:
    """What networks reach against what they cost: a panel per task with a finished run, of which there is one at least.

    A point is the mean AUC over seeds at the mean seconds of training, its bar the 95 % interval over records; small
    points are single seeds. `report` is that of `experiments.leaderboard`.
    """
    rankings = [ranking for ranking in report["tasks"] if any(row["auc"] is not None for row in ranking["rows"])]
    columns = min(3, len(rankings))
    lines = -(-len(rankings) // columns)
    figure = Figure(figsize=(max(6.5, 4.6 * columns), 4.0 * lines + 0.7), layout="constrained")
    figure.suptitle(title, parse_math=False, fontsize=11)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    names: list[Annotation] = []
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
    beside: Any = {"textcoords": "offset points", "va": "center", "fontsize": 8, "parse_math": False, "bbox": box}
    for panel, ranking in zip(panels, rankings, strict=False):
        shown = [row for row in ranking["rows"] if row["auc"] is not None and row["auc"]["low"] is not None]
        for row in sorted(shown, key=lambda row: -row["auc"]["value"]):
            auc, seconds = row["auc"], row["seconds"]
            panel.plot([seconds] * 2, [auc["low"], auc["high"]], color="#355f8d", linewidth=1.6)
            panel.plot([seconds] * row["seeds"], row["of_seeds"], "o", color="#d1662c", markersize=2.5, zorder=5)
            panel.plot(seconds, auc["value"], "o", color="#355f8d", markersize=6, zorder=4)
            names.append(panel.annotate(row["network"], (seconds, auc["value"]), (6, 0), **beside))
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:,g}")
        panel.xaxis.set_minor_formatter("")
        panel.margins(x=0.2, y=0.12)
        panel.grid(color="#dddddd", linewidth=0.5)
        panel.set_title(f"{ranking['task']}, {ranking['records']:,} records", fontsize=9, parse_math=False)
    for panel in panels[len(rankings) :]:
        panel.axis("off")
    figure.supxlabel("seconds to train one network", fontsize=9)
    figure.supylabel("macro AUC; bar: 95 % over records; small points: seeds", fontsize=9)
    _part(figure, names)
    return figure


def _part(figure: Figure, names: Sequence[Annotation]) -> None:
    """Moves names down until none covers one before it."""
    figure.draw_without_rendering()
    for place, name in enumerate(names):
        while any(name.get_window_extent().overlaps(other.get_window_extent()) for other in names[:place]):
            across, shift = name.xyann
            name.xyann = (across, shift - 3)
