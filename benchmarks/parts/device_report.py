"""What `benchmarks.device` measured, as markdown."""

from typing import Any

from benchmarks.parts.tables import case, digits, markdown, milliseconds

Results = dict[str, Any]


def device_report(results: Results) -> str:
    """Machine, then a table per section that has rows, then what was left out or failed."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "jaxlib", "flax"))
    parts = [
        f"{machine['date'][:10]}, {machine['driver'] or machine['devices']}, {versions}:\n\n```\n{machine['command']}\n```\n"
    ]
    tables = {
        "ceilings": _ceilings,
        "steps": _steps,
        "parity": _parity,
        "profile": _profile,
        "epochs": _epochs,
        "originals": _originals,
        "training": _training,
        "convolutions": _convolutions,
        "largest": _steps,
    }
    parts += [table(results[name]) for name, table in tables.items() if results.get(name)]  # earlier ones lack some
    for name, title in (("left_out", "Left out for want of time"), ("failed", "Failed")):
        if results[name]:
            parts.append(
                f"{title}: " + "; ".join(f"{r['what']} {r.get('reason', '')}".strip() for r in results[name]) + "\n"
            )
    return "\n".join(parts)


def _ceilings(rows: list[Results]) -> str:
    header = ("ceilings", "precision", "matrix product, TFLOP/s", "copy, GB/s", "smallest kernel, us")
    return markdown(
        header,
        (
            (
                row["dtype"],
                row["precision"],
                f"{row['flops_per_s'] / 1e12:,.1f}",
                f"{row['bytes_per_s'] / 1e9:,.0f}",
                f"{row['kernel_s'] * 1e6:.2f}",
            )
            for row in rows
        ),
    )


def _steps(rows: list[Results]) -> str:
    def counts(row: Results) -> tuple[str, ...]:
        if "flops" not in row:
            return ("-",) * 4
        least = (
            [f"{1e3 * row['least_s'][k]:.2f}" for k in ("memory", "dispatch", "compute")] if "least_s" in row else "-"
        )
        return f"{row['flops'] / 1e9:,.1f}", f"{row['bytes'] / 1e9:.2f}", f"{row['kernels']:,}", ", ".join(least)

    def name(row: Results) -> tuple[str, ...]:
        *first, batch = case(row)
        several = row.get("steps_per_call", 1)
        return *first, batch if several == 1 else f"{batch}, {several} steps a call"

    header = ("network", "step", "type", "batch", "step, ms (quartiles)", "records/s", "compile, s", "memory, GB")
    header += ("GFLOP", "GB", "kernels", "least by bytes, kernels, products, ms")
    return markdown(
        header,
        (
            (
                *name(row),
                milliseconds(row["step_s"]),
                digits(row["records_per_s"]),
                f"{row['compile_s']:.0f}",
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}",
                *counts(row),
            )
            for row in rows
        ),
    )


def _parity(rows: list[Results]) -> str:
    def verdict(row: Results) -> str:
        broken = [name for name, found in row["rows"].items() if found["pass"] is False]
        return "all hold" if not broken else f"beyond: {', '.join(broken)}"

    def error(row: Results, name: str) -> str:
        found = row["rows"][name]["error"]
        return "no number" if found is None else f"{found:.1e}"

    names = ("forward", "gradient norms", "training loss")
    return markdown(
        ("parity", "precision", *names, "bounds"),
        ((f"`{row['model']}`", row["precision"], *(error(row, name) for name in names), verdict(row)) for row in rows),
    )


def _profile(rows: list[Results]) -> str:
    parts = []
    for row in rows:
        kernels = ((f"`{k['kernel'][:60]}`", f"{k['us']:,.1f}", f"{k['started']:g}") for k in row["longest"])
        parts.append(
            f"`{row['model']}`, {row['dtype']}: {row['us']:,.0f} us in {row['started']:,.0f} kernels per step; the longest:\n\n"
            + markdown(("kernel", "us per step", "started"), kernels)
        )
    return "\n".join(parts)


def _epochs(rows: list[Results]) -> str:
    header = (
        "network",
        "type",
        "batch",
        "records",
        "first epoch, s",
        "later epochs, s (quartiles)",
        "60 epochs, s (extrapolated)",
    )
    return markdown(
        header,
        (
            (
                f"`{row['model']}`",
                row["dtype"],
                str(row["batchsize"]),
                f"{row['records']:,} + {row['validation']:,}",
                digits(row["first_epoch_s"]),
                " ".join(f"{row['epoch_s'][key]:.2f}" for key in ("median", "first_quartile", "third_quartile")),
                f"{row['first_epoch_s'] + 59 * row['epoch_s']['median']:,.0f}",
            )
            for row in rows
        ),
    )


def _originals(rows: list[Results]) -> str:
    def cells(row: Results, mode: str) -> tuple[str, ...]:
        return milliseconds(row[mode]["step_s"]), f"{row[mode]['ours_faster']:.2f}" if "ours_faster" in row[
            mode
        ] else "-"

    header = (
        "original",
        "type",
        "how",
        "train, ms (quartiles)",
        "ours faster by",
        "infer, ms (quartiles)",
        "ours faster by",
        "with",
    )
    return markdown(
        header,
        (
            (
                f"`{row['model']}`",
                row["dtype"],
                row["how"],
                *cells(row, "train"),
                *cells(row, "infer"),
                row["framework"],
            )
            for row in rows
        ),
    )


def _training(rows: list[Results]) -> str:
    def sentence(row: Results) -> str:
        if row["what"] == "test macro AUC":
            return (
                f"seed {row['seed']}: test macro AUC {row['bfloat16']:.4f} in bfloat16, {row['float32']:.4f} in float32"
            )
        if row["what"] == "one program":
            return f"a step of {row['networks']} networks: {row['ratio']:.2f} times as fast in one program as in turn"
        how = "deterministic" if row["deterministic"] else "as it comes"
        return f"trained twice, {how}: {'the same bits' if row['same'] else 'other bits'}"

    return "\n".join(f"- `{row['model']}`, {sentence(row)}" for row in rows) + "\n"


def _convolutions(rows: list[Results]) -> str:
    def slowest(row: Results) -> str:
        name, seconds = next(iter(row["longest_s"].items()), ("-", 0.0))
        return f"{1e6 * seconds:,.0f} us: {name}"

    header = ("convolutions one by one", "type", "shapes", "do not run", "the slowest")
    return markdown(
        header,
        (
            (
                f"`{row['model']}`",
                row["dtype"],
                str(row["shapes"]),
                "; ".join(f"{name}: {why}" for name, why in row["failed"].items()) or "none",
                slowest(row),
            )
            for row in rows
        ),
    )
