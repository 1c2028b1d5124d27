"""The results of the benchmarks as markdown."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

Results = dict[str, Any]


def throughput_tables(results: Results) -> str:
    """What `benchmarks.throughput` measured: machine and ceilings, speed, what bounds it, and the originals beside."""
    rows = results["rows"]
    parts = [machine_lines(results), ceilings_table(results["ceilings"]), speed_table(rows), bounds_table(rows)]
    compared = [row for row in rows if "ratio" in row]
    if compared:
        parts += [ratio_table(compared), geometric_means(compared)]
    return "\n".join(parts)


def machine_lines(results: Results) -> str:
    """Machine, versions, date and command."""
    machine = results["machine"]
    packages = (f"{name} {machine['versions'][name]}" for name in ("jax", "jaxlib", "flax", "optax", "numpy"))
    frameworks = {row["framework"] for row in results["rows"] if "framework" in row}
    return (
        f"{machine['date'][:10]}, {machine['devices']} ({machine['cpu']}, {machine['cores']} cores, load "
        f"{machine['load']}), python {machine['python']}, {', '.join([*packages, *sorted(frameworks)])}:\n\n"
        f"```\n{machine['command']}\n```\n"
    )


def ceilings_table(ceilings: dict[str, dict[str, float]]) -> str:
    """What the machine does at most, per data type."""
    rows = (
        (dtype, f"{c['flops_per_s'] / 1e9:,.0f}", f"{c['bytes_per_s'] / 1e9:,.1f}", f"{c['kernel_s'] * 1e6:.2f}")
        for dtype, c in ceilings.items()
    )
    return markdown(("ceilings", "matrix product, GFLOP/s", "copy, GB/s", "smallest kernel, us"), rows)


def speed_table(rows: list[Results]) -> str:
    """Times and rates. "with input" includes reading shards and the transfer to the device."""
    header = (*CASE, "compile, s", "step, ms (quartiles)", "records/s", "with input", "memory per device, MB")
    return markdown(
        header,
        (
            (
                *case(row),
                f"{row['compile_s']:.1f}",
                milliseconds(row["step_s"]),
                digits(row["records_per_s"]),
                digits(row["records_per_s_with_input"]),
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}",
            )
            for row in rows
        ),
    )


def bounds_table(rows: list[Results]) -> str:
    """What the step has to do, and the share of its time that each bound explains."""
    header = (*CASE, "GFLOP", "GB", "FLOP/byte", "kernels", "of the roofline", "compute", "memory", "dispatch")
    table = markdown(
        (*header, "waits for"),
        (
            (
                *case(row),
                f"{'at least ' if row['unknown_loops'] else ''}{row['flops'] / 1e9:,.2f}",
                f"{row['bytes'] / 1e9:,.2f}",
                f"{row['flops_per_byte']:.1f}",
                f"{row['kernels']:,}",
                f"{row['roofline_fraction']:.0%}",
                *(f"{least / row['step_s']['median']:.0%}" for least in row["least_s"].values()),
                row["waits_for"],
            )
            for row in rows
        ),
    )
    return (
        f"{table}\nThe shares are of the least times for the step's multiplications (zeros of padding and strides not "
        "counted), for its bytes and for starting its kernels one after the other; it waits for the longest, and what "
        "that leaves unexplained is the kernels' own. Above 100 % of the memory's least time, data stayed in a cache.\n"
    )


def ratio_table(rows: list[Results]) -> str:
    """The original's time over ours, beside the highest ratio that the machine's matrix products allow."""
    header = (*CASE, "original, ms (quartiles)", "ours, ms (quartiles)", "ratio", "highest possible")
    return markdown(
        header,
        (
            (
                *case(row),
                milliseconds(row["original_step_s"]),
                milliseconds(row["step_s"]),
                f"**{row['ratio']:.2f}**",
                f"{row['highest_ratio']:.2f}",
            )
            for row in rows
        ),
    )


def geometric_means(rows: list[Results]) -> str:
    """The geometric mean of the ratios over the networks, per mode and batch size."""
    lines = []
    for mode, size in itertools.product(*({row[key]: None for row in rows} for key in ("mode", "batchsize"))):
        ratios = [row["ratio"] for row in rows if (row["mode"], row["batchsize"]) == (mode, size)]
        if len(ratios) > 1:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            lines.append(f"Geometric mean of {len(ratios)} networks, {mode}, batch {size}: **{mean:.2f}**.\n")
    return "\n".join(lines)


CASE = ("network", "step", "type", "batch")


def case(row: Results) -> tuple[str, ...]:
    """The columns that say which step a row is about."""
    return (f"`{row['model']}`", row["mode"], row["dtype"], str(row["batchsize"]))


def milliseconds(spread: dict[str, float]) -> str:
    """Median and quartiles, as `98.2 (97.0, 101)`."""
    median, first, third = (digits(1000 * spread[key]) for key in ("median", "first_quartile", "third_quartile"))
    return f"{median} ({first}, {third})"


def digits(value: float) -> str:
    """A number above 0 with three significant digits, or all before the point: 0.412, 98.2, 12,346."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A markdown table."""
    lines = [tuple(header)]
    lines += [("---",) * len(lines[0]), *map(tuple, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
