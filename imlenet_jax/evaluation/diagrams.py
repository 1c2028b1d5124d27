"""Figures of how good predictions are: the reliability diagram, and differences between networks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from imlenet_jax.evaluation.calibration import Reliability
from imlenet_jax.evaluation.comparison import METRICS

INK = "#222222"
# Told apart in grey print too, by the marker.
STYLES = ({"color": "#355f8d", "marker": "o"}, {"color": "#d1662c", "marker": "s", "linestyle": "--"})


def draw_reliability(curves: Mapping[str, Reliability], classes: Sequence[str], title: str) -> Figure:
    """A panel per class: observed share against mean probability of each bin, with 95 % Wilson intervals.

    `curves` are one or two, by name. The bars below are the share of the records in each bin, of the first.
    """
    columns = min(3, len(classes))
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.5 * rows + 0.9), layout="constrained")
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for place, (panel, name) in enumerate(zip(panels, classes, strict=False)):
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
    for panel in panels[len(classes) :]:
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
            clear = entry["low"] > 0 or entry["high"] < 0
            panel.plot([entry["low"], entry["high"]], [place, place], color="#355f8d", linewidth=1.6)
            panel.plot(entry["value"], place, "o", color="#355f8d", markersize=6, fillstyle="full" if clear else "none")
        panel.set_yticks(range(len(networks)), networks, fontsize=8, parse_math=False)
        panel.set(ylim=(len(networks) - 0.4, -0.6))
        better = "lower is better" if name == "mean_brier" else "higher is better"
        panel.set_title(f"{name} ({better})", fontsize=9, loc="left")
    figure.supxlabel("difference, 95 % interval of a paired bootstrap; filled: zero lies outside", fontsize=9)
    return figure
