"""A leaderboard to read: as plain text, Markdown, LaTeX, and as a table with a row per task and network."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from imlenet_jax.evaluation.text import aligned, as_number, as_range

Row = Mapping[str, Any]

PENDING = "pending"
COLUMNS = (
    *("network", "seeds", "macro AUC", "over records", "over seeds", "difference", "interval", "p"),
    *("parameters", "records/s", "seconds", "memory"),
)
PUBLISHED = ("network", "metric", "published", "ours", "over records", "the published figure is")
_CSV = [
    *("task", "network", "model", "parameters", "seeds", "wanted", "auc_value", "auc_low", "auc_high"),
    *("over_seeds_low", "over_seeds_high", "over_seeds_std"),
    *("difference_value", "difference_low", "difference_high", "difference_p"),
    *("epochs", "records_per_second", "seconds", "peak_memory_bytes"),
]
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def format_leaderboard(report: Row) -> str:
    """A report of `experiments.leaderboard` as plain text."""
    lines: list[str] = []
    for ranking in report["tasks"]:
        lines += [_title(ranking), "", *aligned(COLUMNS, [cells(row) for row in ranking["rows"]]), ""]
        if rows := published_cells(ranking):
            lines += [*aligned(PUBLISHED, rows, left=2), ""]
    return "\n".join([*lines, *notes(report)])


def format_markdown(report: Row) -> str:
    """The same as Markdown: a table per task, and the notes as a list."""
    parts: list[str] = []
    for ranking in report["tasks"]:
        parts += [_title(ranking), _markdown(COLUMNS, [cells(row) for row in ranking["rows"]])]
        if rows := published_cells(ranking):
            parts.append(_markdown(PUBLISHED, rows))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes(report))]) + "\n"


def format_latex(report: Row) -> str:
    """The same as LaTeX, with booktabs: a `tabular` of all tasks, and one of the published figures where they are wanted."""
    rankings = report["tasks"]
    parts = [(_title(ranking), [cells(row) for row in ranking["rows"]]) for ranking in rankings]
    lines = [
        "% \\usepackage{booktabs}; wide: \\small, on a page on its side",
        *_tabular(COLUMNS, parts, "lr" + "r" * (len(COLUMNS) - 2)),
    ]
    theirs = [(ranking["task"], rows) for ranking in rankings if (rows := published_cells(ranking))]
    if theirs:
        lines += ["", *_tabular(PUBLISHED, theirs, "llrrrl")]
    return "\n".join([*lines, *(f"% {note}" for note in notes(report))]) + "\n"


def leaderboard_frame(report: Row) -> pd.DataFrame:
    """A row per task and network: what `ranking` says of each, `auc_low` for the `low` of its `auc`."""
    rows = [{"task": ranking["task"], **row} for ranking in report["tasks"] for row in ranking["rows"]]
    return pd.json_normalize(rows, sep="_").reindex(columns=_CSV)


def cells(row: Row) -> list[str]:
    """A network's row of the table."""
    seeds = str(row["seeds"]) if row["seeds"] == row["wanted"] else f"{row['seeds']} of {row['wanted']}"
    start = [row["network"], seeds]
    if row["auc"] is None:
        return [*start, PENDING, *["-"] * 5, f"{row['parameters']:,}", *["-"] * 3]
    gap = row["difference"]
    return [
        *start,
        as_number(row["auc"]["value"]),
        as_range(row["auc"]),
        as_range(row["over_seeds"]) if row["over_seeds"] else "-",
        *(
            ("best", "-", "-")
            if gap is None
            else (as_number(gap["value"], "+"), as_range(gap, "+"), as_number(gap["p"]))
        ),
        f"{row['parameters']:,}",
        f"{row['records_per_second']:,.0f}",
        f"{row['seconds']:,.{0 if row['seconds'] >= 10 else 1}f}",
        f"{row['peak_memory_bytes'] / 1e9:.2f} GB",
    ]


def published_cells(ranking: Row) -> list[list[str]]:
    """A row per published figure of the networks that have one."""
    return [
        [
            *(row["network"], each["metric"], as_number(each["published"])),
            *(as_number(each["value"]), as_range(each), each["verdict"] or "-"),
        ]
        for row in ranking["rows"]
        for each in row.get("published", ())
    ]


def notes(report: Row) -> Iterator[str]:
    """What the figures mean, a sentence or two each."""
    rankings = report["tasks"]
    settings = rankings[0]["bootstrap"]
    yield (
        f"Macro AUC: mean over seeds. Over records: {100 * settings['level']:g} % bootstrap, {settings['resamples']} resamples, "
        f"seed {settings['seed']}. Over seeds: Student's, of that mean."
    )
    if any(row["difference"] for ranking in rankings for row in ranking["rows"]):
        yield (
            "Difference: from the best, on the same resamples; p is two-sided and not corrected for several comparisons. The "
            "best was chosen on these records, which flatters it."
        )
    yield (
        "Seconds: to train one network, all epochs at the median rate, without compiling, validating and saving. "
        "Memory: the most on the accelerator, or of the process on a CPU."
    )
    if report["flags"]:
        flags = "; ".join(f"{who}: {given}" for who, given in report["flags"].items())
        yield f"Trained with (beside the defaults): {flags}."
    sources = {each["source"] for ranking in rankings for row in ranking["rows"] for each in row.get("published", ())}
    yield from (f"Published: {source}; on all of PTB-XL." for source in sorted(sources))
    if sources and report["not_comparable"]:
        yield f"NOT TO BE COMPARED with the published figures: {'; '.join(report['not_comparable'])}."


def _title(ranking: Row) -> str:
    if not ranking["records"]:
        return f"{ranking['task']}: no run is finished"
    missing = ", mean over those present" * (ranking["auc"] != "macro_auc")
    return f"{ranking['task']}: {ranking['records']:,} records, {len(ranking['classes'])} classes{missing}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tabular(header: Sequence[str], parts: Sequence[tuple[str, Sequence[Sequence[str]]]], columns: str) -> list[str]:
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _latex_row(header)]
    for title, rows in parts:
        heading = f"\\multicolumn{{{len(header)}}}{{l}}{{{escape(title)}}} \\\\"
        lines += ["\\midrule", heading, *map(_latex_row, rows)]
    return [*lines, "\\bottomrule", "\\end{tabular}"]


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(f"${cell}$" if re.match(r"\[?[+-]\d", cell) else escape(cell) for cell in row) + r" \\"


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(c, c) for c in text)
