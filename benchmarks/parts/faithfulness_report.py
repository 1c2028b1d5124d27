"""The results of `benchmarks.faithfulness` as text to read and as a figure."""

import io
from pathlib import Path
from typing import Any

from imlenet_jax.files import write_atomically

Entry = dict[str, Any]

# Okabe and Ito's colours with a line style each, for colour-blind readers and grey print.
STYLES = {
    "attention": ("#D55E00", "-", "attention"),
    "gradient_x_input": ("#56B4E9", "--", "gradient × input"),
    "integrated_gradients": ("#0072B2", (0, (7, 1.5)), "integrated gradients"),
    "amplitude": ("#009E73", ":", "amplitude (control)"),
    "random": ("#777777", "-.", "random (control)"),
}
BETTER = {"deletion": -1, "insertion": 1}  # a good map makes deletion fall early and insertion rise early


def print_report(results: Entry) -> None:
    """Everything measured, table by table, and what the areas say in words."""
    test_folds = ", ".join(map(str, results["test_folds"]))
    print(f"\n{results['model']}, {results['records']} of {results['of_records']} records of fold {test_folds}")
    counts = ", ".join(f"{name} {count}" for name, count in results["explained_records"].items())
    print(f"baseline: {results['baseline']}; explained: {results['explained']} ({counts})")
    print("brackets: 95 % intervals, not corrected for their number")
    if "completeness" in results:
        gap = results["completeness"]
        print(
            f"integrated gradients in {results['integrated_gradients_steps']} steps: their sum misses the change of the "
            f"logit by {gap['median_gap']:.2g} (median; the change is {gap['median_change']:.2g})"
        )
    for grid, methods in results["curves"].items():
        _print_curves(grid, methods)
    if results["sanity"]:
        _print_sanity(results)
    if "localisation" in results:
        _print_localisation(results["localisation"])
    if "moved_infarct" in results:
        moved = results["moved_infarct"]
        _print_contrast(f"an infarction moved in the same {moved['pairs']} synthetic hearts", moved["methods"])
    if "asmi_against_imi" in results:
        found = results["asmi_against_imi"]
        _print_contrast(f"ASMI against IMI: {found['selection']}", found["methods"])


def verdicts(methods: Entry) -> list[str]:
    """Attention against every other map, in words: a sentence per kind of curve."""
    sentences = []
    for kind, found in methods.get("attention", {}).items():
        words: dict[str, list[str]] = {"better than": [], "WORSE than": [], "not shown to differ from": []}
        for other, entry in found["less"].items():
            words[_verdict(entry, BETTER[kind])].append(other)
        said = "; ".join(f"{word} {', '.join(others)}" for word, others in words.items() if others)
        sentences.append(f"{kind}: attention is {said}")
    return sentences


def _verdict(entry: Entry, better: int) -> str:
    if entry["low"] is None or entry["low"] <= 0 <= entry["high"]:
        return "not shown to differ from"
    return "better than" if entry["value"] * better > 0 else "WORSE than"


def _print_curves(grid: str, methods: Entry) -> None:
    rows = [("map", "deletion area (low is good)", "minus random", "insertion area (high is good)", "minus random")]
    for name, kinds in methods.items():
        cells = [name]
        for kind in BETTER:
            cells += [_text(kinds[kind]["area"]), _text(kinds[kind]["less"].get("random"), "+")]
        rows.append(tuple(cells))
    _print_table(f"deletion and insertion by {grid}", rows)
    for sentence in verdicts(methods):
        print(f"  {sentence}")


def _print_sanity(results: Entry) -> None:
    found = results["sanity"]
    levels = list(next(iter(found.values())))
    rows = [("map", levels[0], *(f"+ {level}" for level in levels[1:]))]
    rows += [(name, *(_text(by_level[level]) for level in levels)) for name, by_level in found.items()]
    _print_table(
        f"rank correlation with the maps of the network re-drawn from the output on, {results['redraws']} draws, "
        f"{results['sanity_records']} records (1: these weights do not matter to the map)",
        rows,
    )


def _print_localisation(found: Entry) -> None:
    methods = list(next(iter(found.values()))["methods"]) if found else []
    rows = [("sign", "records", "chance", *methods)]
    for name, entry in found.items():
        cells = [_text(entry["methods"][method]["less_chance"], "+") for method in methods]
        rows.append((name, str(entry["records"]), f"{entry['chance']:.3f}", *cells))
    _print_table("share of the map on the leads that show the sign, minus chance", rows)


def _print_contrast(title: str, methods: Entry) -> None:
    rows = [("map", "leads", "anterior", "inferior", "difference")]
    for method, groups in methods.items():
        for name in ("V1-V4", "II, III, aVF"):
            cells = [_text(groups[name][key]) for key in ("anterior", "inferior")]
            rows.append((method, name, *cells, _text(groups[name]["difference"], "+")))
    _print_table(
        f"{title}\nshare of the map (by chance 0.333 on V1-V4, 0.250 on II, III, aVF); one that follows the infarction has "
        "a difference above 0 on V1-V4 and below 0 on II, III, aVF",
        rows,
    )


def _text(entry: Entry | None, sign: str = "") -> str:
    if entry is None:
        return "-"
    if entry["value"] is None:
        return "none"
    interval = "" if entry["low"] is None else f" [{entry['low']:{sign}.3f}, {entry['high']:{sign}.3f}]"
    return f"{entry['value']:{sign}.3f}{interval}"


def _print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def draw_curves(results: Entry, path: Path) -> None:
    """Mean deletion and insertion curves by leads and by windows, as a PNG."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(14, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True, sharex=True)
    for row, (grid, methods) in zip(axes, results["curves"].items(), strict=True):
        for ax, kind in zip(row, BETTER, strict=True):
            for name, kinds in methods.items():
                colour, style, label = STYLES[name]
                curve = kinds[kind]["curve"]
                shares = [100 * step / (len(curve) - 1) for step in range(len(curve))]
                ax.plot(
                    shares,
                    curve,
                    linestyle=style,
                    color=colour,
                    linewidth=2,
                    label=f"{label}: {kinds[kind]['area']['value']:.3f}",
                )
            hint = "lower is better" if kind == "deletion" else "higher is better"
            ax.set_title(
                f"{kind.capitalize()} by {'whole leads' if grid == 'leads' else 'half-seconds of a lead'}: {hint}",
                fontsize=11,
            )
            # beside the axes: inside it would hide a curve
            ax.legend(
                title="area under the curve",
                fontsize=9,
                title_fontsize=9,
                frameon=False,
                loc="upper left",
                bbox_to_anchor=(1, 1),
            )
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_xlim(0, 100)
            ax.set_ylim(0, 1)
        row[0].set_ylabel("probability of the explained class")
    for ax, what in zip(axes[1], ("replaced by the lead's median", "put back"), strict=True):
        ax.set_xlabel(f"parts {what}, highest score first (%)")
    figure.suptitle(f"{results['model']}: mean of {results['records']} records")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    write_atomically(path, buffer.getvalue())
