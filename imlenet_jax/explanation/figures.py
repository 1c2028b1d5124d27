"""An explanation on ECG paper: `visualization.png` and `visualization.svg`.

Everything is drawn in millimetres of paper, 25 mm/s and 10 mm/mV, the origin at the top left: printed at 100 %, a ruler
fits. All leads have a row of their own, since the map covers all seconds of all leads.
"""

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from imlenet_jax.explanation.attention import LIMITS, Attention
from imlenet_jax.explanation.explain import COLOURS, PURPOSE, Explanation
from imlenet_jax.files import write_atomically

MM_PER_SECOND, MM_PER_MV = 25.0, 10.0
LEFT, TOP, RIGHT = 19.0, 24.0, 46.0  # beside and above the paper: lead names and calibration, title, lead weights
STEPS = 32  # of colour: runs of one step are one line, which keeps the SVG small
MOST_CLASSES = 5  # that a line holds
COLOUR_MAP = LinearSegmentedColormap.from_list("weight", COLOURS, STEPS)
WIDTHS = np.linspace(0.7, 3.2, STEPS)  # points, so that weight shows without colour too
INK, FAINT, STRONG = "#222222", "#f6dcd8", "#e9b3ab"


def write_figures(explanation: Explanation, folder: Path) -> list[Path]:
    """Write `visualization.png` (150 dpi) and `visualization.svg` into the record's folder; return both paths.

    Raises:
        OSError: the folder cannot be written.
    """
    figure = draw(explanation)
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):  # equal inputs, equal files
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "imlenet_jax"}):
            figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
        paths.append(Path(folder) / f"visualization.{suffix}")
        write_atomically(paths[-1], buffer.getvalue())
    return paths


def draw(explanation: Explanation) -> Figure:
    """The record on ECG paper; with attention, its traces coloured by the combined map, and the weights of leads and windows."""
    signal = np.asarray(explanation.signal_mv, np.float64)
    rows, height = _rows(signal, explanation.sampling_rate)
    length = MM_PER_SECOND * len(signal) / explanation.sampling_rate
    attention = explanation.attention
    footer = _footer(explanation)
    width = max(180, LEFT + length + (RIGHT if attention else 6))
    notes = TOP + height + (36 if attention else 8)
    bottom = notes + 4.2 * len(footer) + 3
    figure = Figure(figsize=(width / 25.4, bottom / 25.4), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(bottom, 0))
    axes.axis("off")

    _title(axes, explanation)
    paper = _paper(axes, length, height)
    _calibration(axes, TOP + rows[0])
    times = LEFT + MM_PER_SECOND * np.arange(len(signal)) / explanation.sampling_rate
    steps = _steps(even_shares(attention.combined)) if attention else None
    for lead, (name, y) in enumerate(zip(explanation.leads, TOP + rows, strict=True)):
        _text(axes, LEFT - 1.5, y, name, weight="bold", ha="right", size=9)
        _trace(
            axes,
            np.column_stack([times, y - MM_PER_MV * signal[:, lead]]),
            None if steps is None else steps[lead],
            paper,
        )
    for second in range(int(length / MM_PER_SECOND) + 1):
        _text(axes, LEFT + second * MM_PER_SECOND, TOP + height + 4, f"{second} s", ha="center")
    if attention:
        _lead_weights(axes, attention, TOP + rows, LEFT + length + 4)
        _rhythm(axes, attention, length, TOP + height + 10)
        _colour_bar(axes, even_shares(attention.combined), TOP + height + 25)
    for number, line in enumerate(footer):
        _text(axes, LEFT, notes + 4.2 * number + 2, line, size=7.5, color="#444444")
    return figure


def even_shares(weights: NDArray) -> NDArray[np.float64]:
    """Weights that sum to one, in multiples of the share that each would have if all were equal."""
    return np.asarray(weights, np.float64) * np.size(weights)


def depth(values: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """How dark values are drawn, 0 at `low` to 1 at `high`: by their square root, since few weights are much of the whole."""
    return np.sqrt(np.clip((values - low) / (high - low or 1), 0, 1))


def _rows(signal: NDArray, rate: float) -> tuple[NDArray, float]:
    """How far down each lead's 0 mV lies and how high the paper is, in mm: neighbours just keep clear of each other."""
    reach = max(1, int(0.15 * rate))
    padded = np.pad(signal, ((reach, reach), (0, 0)), mode="edge")
    near = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    high, low = MM_PER_MV * near.max(axis=-1), MM_PER_MV * near.min(axis=-1)
    needed = [high[:, 0].max(), *(high[:, 1:] - low[:, :-1]).max(axis=0), -low[:, -1].min()]
    gaps = np.clip(5 * np.ceil((np.array(needed) + 2) / 5), 10, 60)  # on the bold lines of the paper
    return np.cumsum(gaps[:-1]), float(gaps.sum())


def _paper(axes: Axes, length: float, height: float) -> Rectangle:
    for step, colour, thickness in ((1, FAINT, 0.3), (5, STRONG, 0.5)):
        xs, ys = np.arange(0, length + 0.01, step), np.arange(0, height + 0.01, step)
        lines = [[(LEFT + x, TOP), (LEFT + x, TOP + height)] for x in xs]
        lines += [[(LEFT, TOP + y), (LEFT + length, TOP + y)] for y in ys]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=thickness, zorder=0))
    edge = Rectangle((LEFT, TOP), length, height, fill=False, edgecolor=STRONG, linewidth=0.8)
    axes.add_patch(edge)
    return edge


def _calibration(axes: Axes, y: float) -> None:
    """1 mV for 0.2 s, once, beside the first row."""
    xs = LEFT + np.array([-16, -14.5, -14.5, -9.5, -9.5, -8])
    axes.plot(xs, y - MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]), color=INK, linewidth=0.8)
    _text(axes, LEFT - 12, y + 2.5, "1 mV", ha="center", size=7)


def _trace(axes: Axes, points: NDArray, steps: NDArray | None, paper: Rectangle) -> None:
    if steps is None:
        lines = LineCollection([points], colors=INK, linewidths=0.9)
    else:
        starts = np.flatnonzero(np.diff(steps, prepend=-1))
        runs = [points[start : end + 1] for start, end in zip(starts, [*starts[1:], len(steps)], strict=True)]
        lines = LineCollection(runs, colors=COLOUR_MAP(steps[starts]), linewidths=WIDTHS[steps[starts]])
        lines.set(capstyle="round")
    lines.set(zorder=3, clip_path=paper, joinstyle="round")
    axes.add_collection(lines)


def _steps(shares: NDArray) -> NDArray[np.int64]:
    """The colour step of each line between two samples, 0 to STEPS - 1 over the whole range of `shares` (..., samples)."""
    middles = (shares[..., :-1] + shares[..., 1:]) / 2
    return np.minimum(STEPS * depth(middles, shares.min(), shares.max()), STEPS - 1).astype(int)


def _lead_weights(axes: Axes, attention: Attention, ys: NDArray, x: float) -> None:
    longest, even = RIGHT - 20, 1 / attention.channel.size
    scale = longest / max(attention.channel.max(), even)
    _text(axes, x, TOP - 7, "Leads (channel level)", weight="bold", size=8)
    _text(axes, x, TOP - 3, f"dotted: even, {even:.1%}", size=7, color="#444444")
    axes.plot([x + scale * even] * 2, [TOP, ys[-1] + 4], color=INK, linewidth=0.8, linestyle=":", zorder=4)
    for y, weight in zip(ys, attention.channel, strict=True):
        axes.add_patch(Rectangle((x, y - 2), scale * weight, 4, color="#355f8d", linewidth=0))
        _text(axes, x + scale * max(weight, even) + 1.2, y, f"{weight:.1%}")


def _rhythm(axes: Axes, attention: Attention, length: float, y: float) -> None:
    """Each half-second's share of the record: the rhythm level of all leads, weighted by the channel level."""
    shares = (attention.channel[:, None] * attention.rhythm).sum(axis=0)
    width, low, high = length / len(shares), shares.min(), shares.max()
    _text(axes, LEFT, y - 1, "Windows (rhythm level, leads weighted by the channel level)", weight="bold", size=8)
    for number, share in enumerate(shares):
        x, dark = LEFT + number * width, float(depth(share, low, high))
        axes.add_patch(Rectangle((x, y + 1.5), width, 6, fc=COLOUR_MAP(dark), ec="white", linewidth=0.8))
        colour = "white" if dark > 0.35 else "black"
        _text(axes, x + width / 2, y + 4.5, f"{share:.1%}", ha="center", color=colour, size=7, weight="bold")


def _colour_bar(axes: Axes, shares: NDArray, y: float) -> None:
    """The range that the colours really span, drawn as wide as the lines are."""
    low, high, span = shares.min(), shares.max(), 100.0
    edges = np.linspace(LEFT, LEFT + span, STEPS + 1)
    for step, width in enumerate(WIDTHS):
        axes.plot(edges[step : step + 2], [y, y], color=COLOUR_MAP(step), linewidth=4 * width, solid_capstyle="butt")
    for share in low + (high - low) * np.linspace(0, 1, 6) ** 2:
        shown = f"{share:.3g}" if share > high / 1000 else "0"  # not 3.44e-07, which no eye tells from it
        _text(axes, LEFT + span * float(depth(share, low, high)), y + 4.5, shown, ha="center")
    caption = f"weight of a sample, all three levels: multiples of an even share (1 = 1/{shares.size:,})"
    _text(axes, LEFT + span + 8, y, caption, size=8)


def _title(axes: Axes, explanation: Explanation) -> None:
    parts = []
    for name, value, limit, _ in explanation.most_probable(MOST_CLASSES):
        bound = "" if limit is None else f" {'≥' if value >= limit else '<'} {limit:.2f}"
        parts.append(f"{name} {value:.2f}{bound}")
    if len(explanation.classes) > MOST_CLASSES:
        parts.append(f"(of {len(explanation.classes)})")
    name = " ".join(explanation.name.split())
    name = name if len(name) <= 90 else f"{name[:88]} …"
    _text(
        axes,
        LEFT,
        5,
        f"{name}   predicted: {textwrap.shorten(explanation.verdict, 80, placeholder=' ...')}",
        size=13,
        weight="bold",
    )
    _text(
        axes,
        LEFT,
        11,
        ("probability:   " if explanation.exclusive else "probability, threshold:   ") + "     ".join(parts),
        size=10,
    )
    _text(axes, LEFT, 16, f"25 mm/s   10 mm/mV   {PURPOSE}", size=8, color="#444444")


def _footer(explanation: Explanation) -> list[str]:
    sentences = [LIMITS] * (explanation.attention is not None) + list(explanation.notes)
    return [line for sentence in sentences for line in textwrap.wrap(sentence, 170)]


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    defaults: dict[str, Any] = {
        "size": 8,
        "color": INK,
        "va": "center",
        "parse_math": False,
    }  # a record may be named $x$
    axes.text(x, y, text, **(defaults | style))
