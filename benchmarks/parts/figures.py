"""The plots of `benchmarks.throughput` and `benchmarks.compiled`."""

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts.program import by_program
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically

MARKERS = {"train": "o", "infer": "^"}
LINES = {"float32": "-", "bfloat16": "--"}


def check_matplotlib() -> None:
    """Refuse to start where the plot could not be drawn in the end."""
    if find_spec("matplotlib") is None:
        raise UserError("the plot needs matplotlib: pip install 'imlenet_jax[test]'")


def draw(results: dict[str, Any], path: Path) -> None:
    """Records/s against batch size, and every step on the roofline of the machine, as one PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(12, 5), layout="constrained")
    rates, roofline = figure.subplots(1, 2)
    rows = results["rows"]
    colours = {model: f"C{number}" for number, model in enumerate(dict.fromkeys(row["model"] for row in rows))}
    for ceiling_dtype, ceiling in results["ceilings"].items():
        _draw_roof(roofline, rows, ceiling_dtype, ceiling)
    for model, mode, dtype in dict.fromkeys((row["model"], row["mode"], row["dtype"]) for row in rows):
        line = [row for row in rows if (row["model"], row["mode"], row["dtype"]) == (model, mode, dtype)]
        line.sort(key=lambda row: row["batchsize"])
        style = {"color": colours[model], "marker": MARKERS[mode], "linestyle": LINES[dtype]}
        label = f"{model}, {mode}" + ("" if dtype == "float32" else f", {dtype}")
        rates.plot([row["batchsize"] for row in line], [row["records_per_s"] for row in line], label=label, **style)
        reached = [row["flops"] / row["step_s"]["median"] / 1e9 for row in line]
        roofline.plot([row["flops_per_byte"] for row in line], reached, **style)
        for row, speed in zip(line, reached, strict=True):
            offset = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7}
            roofline.annotate(str(row["batchsize"]), (row["flops_per_byte"], speed), **offset)
    rates.set(xlabel="batch size", ylabel="records/s", title="Throughput, input excluded")
    roofline.set(xlabel="FLOP per byte", ylabel="GFLOP/s", title="Roofline (numbers are batch sizes)")
    for axes in (rates, roofline):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter("")
    sizes = sorted({row["batchsize"] for row in rows})
    rates.set_xticks(sizes, map(str, sizes))
    handles = rates.get_legend_handles_labels()[0] + roofline.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    machine = results["machine"]
    figure.suptitle(f"{machine['devices']}, {machine['cpu']}, jax {machine['versions']['jax']}, {machine['date'][:10]}")
    _save(figure, path)


def _draw_roof(axes: Any, rows: list[dict[str, Any]], dtype: str, ceiling: dict[str, float]) -> None:
    ridge = ceiling["flops_per_s"] / ceiling["bytes_per_s"]
    intensities = [row["flops_per_byte"] for row in rows] + [ridge]
    reach = np.geomspace(min(intensities) / 2, max(intensities) * 2, 200)
    roof = np.minimum(ceiling["flops_per_s"], reach * ceiling["bytes_per_s"]) / 1e9
    axes.plot(reach, roof, color="black", linestyle=LINES[dtype], label=f"roofline, {dtype}")


def draw_least_times(rows: list[dict[str, Any]], earlier: list[dict[str, Any]], path: Path) -> None:
    """The least time of each network's training step by bytes, by multiplications and by kernels, as one PNG.

    `rows` and `earlier` are those of two `compiled.json`; what the earlier one lacks has no point.
    """
    from matplotlib.figure import Figure

    reasons = {"memory": "bytes", "compute": "multiplications", "dispatch": "kernels, one after the other"}
    shown = [row for row in rows if row["mode"] == "train" and row["devices"] == 1]
    known = by_program(earlier)
    before = [known.get(program) for program in by_program(shown)]
    labels = [f"{row['model']}\n{row['dtype']}, {row['batchsize']}" for row in shown]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (reason, label) in enumerate(reasons.items()):
        places = np.arange(len(shown)) + 0.25 * (number - 1)
        colour = f"C{number}"
        axes.bar(places, [1e3 * row["least_s"][reason] for row in shown], 0.22, color=colour, label=f"by {label}")
        heights = [1e3 * found["least_s"][reason] if found else np.nan for found in before]
        axes.scatter(places, heights, marker="_", s=220, color=colour, linewidth=2)
    axes.scatter([], [], marker="_", s=220, color="grey", linewidth=2, label="before")
    axes.set(
        yscale="log",
        ylabel="least time of a step, ms",
        title=f"Training steps compiled for {shown[0]['target'].upper()}",
    )
    axes.set_xticks(range(len(shown)), labels, fontsize="small")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())
