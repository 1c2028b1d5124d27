"""What may be claimed of several runs to a target AUC, when that is a record, and the page of the records."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.parts.tables import digits, markdown
from imlenet_jax.checkpoints.description import SCORE
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.seeds import over_seeds
from imlenet_jax.files import read_json

LEAST_RUNS = 5
LARGEST_P = 0.01

HEAD = f"""# Records: seconds of training to a validation AUC

Made by `python -m benchmarks.readme` from the JSON files here; change those, not this page. Each file
holds the command, the machine, the versions and the log of every run.

## Rules

**What is run.** One command trains a network anew from each of the seeds 0, 1, 2, ... on folds 1-8, for a number of epochs
that is fixed before. After every epoch it takes the macro AUC of fold 9.

**What counts as time.** The training steps, until the device has done the last one of the epoch. Not counted are
compilation (done first, on a copy of the network that is thrown away), validation, and copying the recordings to the device,
where they then stay.

**What is a record.** The mean AUC *of the last epoch* is above the target with p < {LARGEST_P}, by a one-sided t-test over at
least {LEAST_RUNS} runs. The best epoch does not count. No run is left out. Recipe, epochs and number of runs are chosen before, and runs
are not added until p is small enough.

**What is compared.** The upper end of the 95 % interval of the mean seconds of a whole run, so that noise helps nobody, among
records of the same data (by their fingerprint) and the same target. The seconds until the target is *first* reached are told
beside it, but give no place: they stop the clock by the very AUC that is to be shown.

**Ties.** Results whose upper ends are equal to three significant digits share a place. The older is listed first.

**What may be changed.** Anything in the network, the recipe, the code and the hardware.

**What may not.** The recordings, their folds, labels and metric, and the rules above. Nothing is learnt from folds 9 and 10,
and no weights come from elsewhere. A recipe may have been chosen by fold 9; the AUC here is therefore not one of a test.

## How to add yours

Fork, and choose recipe, epochs and number of runs with trials that you do not hand in. Then, on all of PTB-XL:

```
python -m experiments.prepare --data_dir PTBXL --out shards
python -m benchmarks.time_to_auc --model mousavi --target 0.90 --epochs 10 --runs 5 --data_dir shards --out benchmarks/records
python -m benchmarks.readme
```

The command says whether the result is a record. Open a pull request with its JSON file, this page, and the code if you changed any.
"""


def claims(runs: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """What two runs or more say of a recipe.

    Args:
        runs: of one seed each; `epochs` has, per epoch, the training `seconds` so far and the validation AUC (`SCORE`).
        target: the AUC to reach.

    Returns:
        `seconds` of a whole run and `final_auc`, each with its mean and its interval (`over_seeds`); `p` of the final AUC's
        mean being no more than the target; `never_reached`, the number of runs that have no epoch at the target;
        `seconds_to_target`, as `seconds`, None where there is such a run.
    """
    last = [run["epochs"][-1] for run in runs]
    final = [row[SCORE] for row in last]
    first = [next((row["seconds"] for row in run["epochs"] if row[SCORE] >= target), None) for run in runs]
    reached = [seconds for seconds in first if seconds is not None]
    return {
        "seconds": _summary([row["seconds"] for row in last]),
        "final_auc": _summary(final),
        "p": p_not_above(final, target),
        "never_reached": len(runs) - len(reached),
        "seconds_to_target": _summary(reached) if len(reached) == len(runs) else None,
    }


def _summary(values: list[float]) -> dict[str, float | int]:
    return over_seeds([{"value": {"value": value}} for value in values])["value"]


def p_not_above(values: list[float], target: float) -> float:
    """p of the one-sided one-sample t-test that the mean is above the target; of equal values 0 or 1."""
    excess, std = float(np.mean(values)) - target, float(np.std(values, ddof=1))
    if std == 0:
        return float(excess <= 0)
    return float(stats.t.sf(excess / std * math.sqrt(len(values)), len(values) - 1))


def why_no_record(result: dict[str, Any]) -> list[str]:
    """What the rules have against a result, by its logs; nothing, where it is a record."""
    runs = result["runs"]
    reasons = []
    if len(runs) < LEAST_RUNS:
        reasons.append(f"{len(runs)} runs are fewer than {LEAST_RUNS}")
    if not (p := claims(runs, result["target"])["p"]) < LARGEST_P:
        reasons.append(f"p = {p:.2g} is not below {LARGEST_P}")
    if [run["seed"] for run in runs] != list(range(len(runs))):
        reasons.append("its seeds are not 0, 1, 2 and so on")
    if any(len(run["epochs"]) != result["recipe"]["epochs"] for run in runs):
        reasons.append("not every run has all its epochs")
    return reasons


def format_claims(result: dict[str, Any]) -> str:
    """The claims as sentences, and whether they are a record."""
    found, target, reasons = claims(result["runs"], result["target"]), result["target"], why_no_record(result)
    runs, never = len(result["runs"]), found["never_reached"]
    lines = [
        f"mean and 95 % interval over {runs} seeds:",
        f"{result['recipe']['epochs']} epochs take {_seconds(found['seconds'])} of training",
        f"{target:g} is first reached after {_seconds(found['seconds_to_target'])} of training"
        if never == 0
        else f"{never} of {runs} runs never reach {target:g}, so there is no mean time to it",
        f"the final validation macro AUC is {_auc(found['final_auc'])}; that its mean is above {target:g} has p = {found['p']:.2g}",
        f"no record: {'; '.join(reasons)}" if reasons else "a record by the rules of benchmarks/records/README.md",
    ]
    return "\n".join(lines)


def records_page(folder: Path) -> str:
    """The rules, and a table for each data set and target of the JSON files in a folder.

    Raises:
        UserError: a file is no result of `benchmarks.time_to_auc`, or no record.
    """
    groups: dict[tuple[Any, ...], list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = read_json(path)
            reasons = why_no_record(result)
            key = (*(result["data"][name] for name in ("source", "train_records", "fingerprint")), result["target"])
        except (ValueError, KeyError, TypeError, IndexError):
            raise UserError(f"{path} is no result of benchmarks.time_to_auc: make it again") from None
        if reasons:
            raise UserError(f"{path} is no record ({'; '.join(reasons)}): move it elsewhere")
        groups.setdefault(key, []).append((path, result))
    return "\n".join([HEAD, *(_section(groups[key]) for key in sorted(groups))])


def _section(group: list[tuple[Path, dict[str, Any]]]) -> str:
    """The table of the records of one data set and target, the first place first."""
    result = group[0][1]
    data, found = result["data"], {path: claims(each["runs"], each["target"]) for path, each in group}
    ends = {path: float(f"{each['seconds']['high']:.3g}") for path, each in found.items()}
    place = {path: 1 + sum(other < end for other in ends.values()) for path, end in ends.items()}
    group = sorted(group, key=lambda entry: (place[entry[0]], entry[1]["machine"]["date"]))
    rows = ((str(place[path]), *_cells(path, each, found[path])) for path, each in group)
    header = ("place", "network", "epochs", "recipe", "device", "s per run (95 %)", "s to the target (95 %)")
    table = markdown((*header, "final AUC (95 %)", "p", "runs", "date"), rows)
    return (
        f"## {data['source']}, {data['train_records']:,} recordings to train on: {result['target']:g}\n\n"
        f"{data['sampling_rate']} Hz, {data['validation_records']:,} recordings to validate on, fingerprint "
        f"`{data['fingerprint'][:12]}`.\n\n{table}"
    )


def _cells(path: Path, result: dict[str, Any], found: dict[str, Any]) -> tuple[str, ...]:
    recipe, first, machine = result["recipe"], found["seconds_to_target"], result["machine"]
    on_cpu = f"{machine['cpu']}, {machine['cores']} cores"
    told = {"batchsize": recipe["batchsize"], "lr": recipe["lr"], "dtype": recipe["dtype"]} | result["changed"]
    return (
        f"`{result['model']}`",
        str(recipe["epochs"]),
        ", ".join(f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in told.items()),
        on_cpu if "(cpu)" in machine["devices"] else machine["devices"],
        _seconds(found["seconds"]),
        _seconds(first) if first else f"never in {found['never_reached']}",
        _auc(found["final_auc"]),
        f"{found['p']:.1e}",
        str(len(result["runs"])),
        f"[{machine['date'][:10]}]({path.name})",
    )


def _seconds(summary: dict[str, float]) -> str:
    mean, low, high = (digits(summary[key]) if summary[key] > 0 else "0" for key in ("mean", "low", "high"))
    return f"{mean} s [{low}, {high}]"


def _auc(summary: dict[str, float]) -> str:
    return f"{summary['mean']:.4f} [{summary['low']:.4f}, {summary['high']:.4f}]"
