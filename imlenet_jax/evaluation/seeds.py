"""Several networks that differ only in their seed: the mean of a metric over them, and its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95


def over_seeds(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int]]:
    """Per metric `{mean, low, high, std, n}` over the reports (`evaluate`) of n seeds, two at least.

    The interval is Student's for the mean of n networks: it speaks of the draw of weights, order and dropout, not of
    that of records, which each report's own interval is about. Metrics that some report lacks are left out.
    """
    summary: dict[str, dict[str, float | int]] = {}
    for name, entry in reports[0].items():
        if not isinstance(entry, Mapping) or "value" not in entry:
            continue
        found = [report[name]["value"] for report in reports]
        if any(value is None for value in found):
            continue
        values = np.array(found, float)
        n, std = len(values), float(values.std(ddof=1))
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / np.sqrt(n)
        mean = float(values.mean())
        summary[name] = {"mean": mean, "low": mean - half, "high": mean + half, "std": std, "n": n}
    return summary


def format_seeds(summary: Mapping[str, Mapping[str, float | int]]) -> str:
    """A summary of `over_seeds` as plain text."""
    width = max(map(len, summary), default=0)
    lines = [f"{'metric'.ljust(width)}    mean   95 % interval of the mean"]
    lines += [f"{name.ljust(width)}  {e['mean']:.4f}  [{e['low']:.4f}, {e['high']:.4f}]" for name, e in summary.items()]
    return "\n".join(lines)
