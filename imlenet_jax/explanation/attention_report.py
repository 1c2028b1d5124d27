"""The attention of many records to look at: figures of mean weights, and one page with all of it."""

import base64
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from imlenet_jax.explanation.attention import LIMITS
from imlenet_jax.explanation.explain import PURPOSE

STYLE = """
:root { color-scheme: light }
body { margin: 0 auto; max-width: 1100px; padding: 12px 16px; font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff }
img { max-width: 100%; height: auto }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.soft { color: #555; font-size: .88rem }
"""


def draw_means(frame: pd.DataFrame, title: str, axis: str) -> Figure:
    """Means and intervals of `mean_weights`, a panel per class on one scale, the even share dotted.

    `axis` says what the names on the horizontal axis are.
    """
    groups = [(name, rows) for name, rows in frame.groupby("class", sort=False) if rows["n"].iloc[0]]
    columns = min(2, len(groups))
    figure = Figure(figsize=(6.2 * columns, 2.5 * -(-len(groups) // columns) + 0.7), layout="constrained")
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(-(-len(groups) // columns), columns, sharey=True, squeeze=False).ravel()
    for panel, (group, rows) in zip(panels, groups, strict=False):
        places, mean = np.arange(len(rows)), rows["mean"].to_numpy()
        spread = np.clip([mean - rows["low"], rows["high"] - mean], 0, None)
        panel.bar(places, mean, color="#9fc3cc", width=0.75)
        panel.errorbar(places, mean, spread, fmt="none", color="#222222", capsize=2, linewidth=1.2)
        panel.axhline(1 / len(rows), color="#222222", linestyle=":", linewidth=1)
        panel.set_title(f"{group}, {rows['n'].iloc[0]:,} records", fontsize=10, parse_math=False)
        panel.set_xticks(places, rows["name"], fontsize=8, parse_math=False, rotation=0 if len(rows) <= 12 else 90)
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    for panel in panels[len(groups) :]:
        panel.axis("off")
    figure.supxlabel(axis, fontsize=9)
    figure.supylabel("mean weight, 95 % interval; dotted: even", fontsize=9)
    return figure


def page(
    title: str,
    about: Sequence[str],
    figures: dict[str, bytes],
    leads: pd.DataFrame,
    records: dict[str, pd.DataFrame],
    links: dict[int, str],
) -> str:
    """One HTML file: `figures` (caption -> PNG) inside it, `leads` of `mean_weights` as a table, tables of `per_record`
    by caption, whose `ecg_id` in `links` lead to a record's own page. Every string is escaped.
    """
    parts = [f"<h1>{_escaped(title)}</h1>", *[f"<p>{_escaped(line)}</p>" for line in about]]
    parts += [f"<p>{_escaped(LIMITS)}</p>", f"<p>{_escaped(PURPOSE)}</p>"]
    for caption, image in figures.items():
        data = base64.b64encode(image).decode()
        name = _escaped(caption)
        parts.append(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{data}">')
    parts.append("<h2>Mean weight of each lead, in per cent, with its 95 % interval</h2>" + _lead_table(leads))
    for caption, frame in records.items():
        parts.append(f"<h2>{_escaped(caption)}</h2>" + _record_table(frame, links))
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{_escaped(title)}</title><style>{STYLE}</style></head>\n<body>" + "\n".join(parts) + "</body></html>\n"
    )


def _lead_table(leads: pd.DataFrame) -> str:
    groups = [(str(group), entries) for group, entries in leads.groupby("class", sort=False)]
    header = ["lead", *[f"{_escaped(group)} ({entries['n'].iloc[0]:,})" for group, entries in groups]]
    columns = [list(map(_escaped, leads["name"].unique()))]
    for _, entries in groups:
        numbers = 100 * entries[["mean", "low", "high"]].to_numpy()
        columns.append([_interval(*row) for row in numbers])
    return _table(header, [list(row) for row in zip(*columns, strict=True)])


def _interval(mean: float, low: float, high: float) -> str:
    return "-" if np.isnan(mean) else f'{mean:.1f} <span class="soft">[{low:.1f}, {high:.1f}]</span>'


def _record_table(frame: pd.DataFrame, links: dict[int, str]) -> str:
    rows = []
    for row in frame.to_dict("records"):
        name, link = str(row["ecg_id"]), links.get(row["ecg_id"])
        shown = f'<a href="{_escaped(link)}">{name}</a>' if link else name
        top = _escaped(f"{row['top_lead']} ({row['top_weight']:.1%})")
        rows.append([shown, _escaped(row["labels"]), f"{row['entropy']:.3f}", f"{row['effective_share']:.2%}", top])
    return _table(["record", "labels", "entropy, nats", "effective share of the samples", "most weighted lead"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _escaped(value: object) -> str:
    return html.escape(str(value))
