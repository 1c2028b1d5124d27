"""The plot of `benchmarks.throughput`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from imlenet_jax.errors import UserError

MARKERS = {"train": "o", "infer": "^"}
LINES = {"float32": "-", "bfloat16": "--"}


def check_matplotlib() -> None:
    """Refuse to start where the plot could not be drawn in the end."""
    if find_spec("matplotlib") is None:
        raise UserError("the plot needs matplotlib: pip install 'imlenet_jax[test]'")


def draw(results: dict[str, Any], path: Path) -> None:
    """Records/s against batch size, and every step on the roofline of the machine, as one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    rates, roofline = figure.subplots(1, 2)
    rows = results["rows"]
    colours = {model: f"C{number}" for number, model in enumerate(dict.fromkeys(row["model"] for row in rows))}
    _draw_rates(rates, rows, colours)
    _draw_roofline(roofline, rows, results["ceilings"], colours)
    machine = results["machine"]
    figure.suptitle(f"{machine['device']}, {machine['processor']}, jax {machine['jax']}, {machine['date'][:10]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_rates(axes: Any, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    for model, mode, dtype in dict.fromkeys((row["model"], row["mode"], row["dtype"]) for row in rows):
        points = [row for row in rows if (row["model"], row["mode"], row["dtype"]) == (model, mode, dtype)]
        points.sort(key=lambda row: row["batchsize"])
        axes.plot(
            [row["batchsize"] for row in points],
            [row["records_per_s"] for row in points],
            label=f"{model}, {mode}" + ("" if dtype == "float32" else f", {dtype}"),
            color=colours[model],
            marker=MARKERS[mode],
            linestyle=LINES[dtype],
        )
    axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="records/s", title="Throughput")
    sizes = sorted({row["batchsize"] for row in rows})
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")


def _draw_roofline(
    axes: Any, rows: list[dict[str, Any]], ceilings: dict[str, dict[str, float]], colours: dict[str, str]
) -> None:
    intensities = [row["flops_per_byte"] for row in rows]
    reach = np.geomspace(min(intensities) / 4, max(intensities) * 4, 200)
    for dtype, ceiling in ceilings.items():
        roof = np.minimum(ceiling["flops_per_s"], reach * ceiling["bytes_per_s"]) / 1e9
        axes.plot(reach, roof, color="black", linestyle=LINES[dtype], label=f"roofline, {dtype}")
    for row in rows:
        speed = row["flops"] / row["step_s"]["median"] / 1e9
        hollow = row["dtype"] != "float32"
        axes.plot(
            row["flops_per_byte"],
            speed,
            color=colours[row["model"]],
            marker=MARKERS[row["mode"]],
            markerfacecolor="none" if hollow else None,
        )
        label = f"{row['model']} {row['mode']} {row['batchsize']}"
        axes.annotate(label, (row["flops_per_byte"], speed), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s", title="Roofline")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
