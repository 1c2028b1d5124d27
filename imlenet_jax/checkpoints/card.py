"""The model card: what a network is, how it came about and how good it was found. Nothing in it is typed by hand."""

import contextlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from imlenet_jax.checkpoints.description import SCORE, Meta, from_ranges
from imlenet_jax.files import write_atomically
from imlenet_jax.models import abstract_variables, create_model

CARD = "card.md"
LICENCES = {
    "PTB-XL": "PTB-XL 1.0.3 (Wagner et al. 2020, doi 10.13026/kfzx-aw45): CC BY 4.0",
    "synthetic": "synthetic ECGs of imlenet_jax: Apache-2.0",
}
HEADLINES = ("macro_auc", "macro_auc_present", "mean_accuracy_at_0.5", "max_f1_101_thresholds", "accuracy", "macro_f1")
NOT_FOR = (
    "For research, not for diagnosis: it is no medical device. It knows no finding but its classes, which are what the readers "
    "of its data wrote down, and was not tested on other patients, devices or countries than those named here."
)


def card(meta: Meta, tests: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The card in Markdown.

    Args:
        meta: the network's description.
        tests: what `experiments.test` has found of it: the contents of its files `logs`, `groups` and `sets`, as far as
            there are.
    """
    tests = tests or {}
    lines = [f"# {meta.model}, {meta.task}", "", NOT_FOR, "", *_table(_network(meta)), "", "## Training", ""]
    lines += [*_table(_training(meta)), ""]
    if meta.thresholds or meta.youden:
        lines += ["## Thresholds", "", *_thresholds(meta), ""]
    if "logs" in tests:
        lines += ["## Test", "", *_test(tests["logs"]), ""]
    if "groups" in tests:
        lines += ["## Groups", "", *_groups(tests["groups"]), ""]
    if "sets" in tests:
        lines += ["## Classes that cannot be ruled out", "", *_sets(tests["sets"]), ""]
    return "\n".join(lines)


def write_card(folder: Path, meta: Meta, tests: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write `card.md` into a folder of checkpoints; left out where nothing may be written there."""
    with contextlib.suppress(PermissionError):
        write_atomically(folder / CARD, card(meta, tests).encode())


def parameters(meta: Meta) -> int:
    """How many numbers were trained."""
    shapes = abstract_variables(create_model(meta.model, meta.network_config))["params"]
    return sum(math.prod(array.shape) for array in jax.tree.leaves(shapes))


def _network(meta: Meta) -> Iterator[tuple[str, Any]]:
    samples = meta.record_samples
    yield "network", f"{meta.model}, {parameters(meta):,} parameters"
    seconds = samples / meta.sampling_rate
    yield "input", f"{seconds:g} s at {meta.sampling_rate} Hz ({samples} samples), in mV"
    if meta.samples:
        yield (
            "windows",
            f"of {meta.config['length'] / meta.sampling_rate:g} s, half of one apart; the mean of their probabilities",
        )
    yield "leads", ", ".join(meta.leads)
    kind = "one of them" if meta.asked.exclusive else "any number of them"
    yield f"classes ({kind})", ", ".join(meta.classes)
    yield "scaler", f"mean {meta.scaler['mean']:.6g} mV, standard deviation {meta.scaler['std']:.6g} mV"


def _training(meta: Meta) -> Iterator[tuple[str, Any]]:
    flags = meta.training
    if "converted_from" in flags:
        yield "converted from", flags["converted_from"]
    records = meta.records or {}
    source = records.get("source")
    if source:
        first, last = from_ranges(records["ecg_ids"])
        count = int((last - first + 1).sum())
        yield "data", LICENCES.get(source, f"{source}: ask their owner for the licence")
        yield (
            "records",
            f"{count:,} of fold {_text(flags.get('train_folds'))}; validated on fold {_text(flags.get('val_folds'))}",
        )
    if meta.data_fingerprint:
        yield "fingerprint of the data", meta.data_fingerprint
    if "lr" in flags:
        yield "command", "`" + _command(flags) + "`"
    if meta.epoch:
        score = meta.metrics.get(SCORE)
        found = "" if score is None else f", validation macro AUC {score:.4f}"
        yield "epoch", f"{meta.epoch}{found}"
    started = flags.get("started_from")
    if isinstance(started, dict):
        yield "started from", f"{started.get('model')}, epoch {started.get('epoch')}"
    yield "versions", ", ".join(f"{name} {number}" for name, number in meta.versions.items())


# Flags that decide the result, and what they are unless given (where the command need not say it).
_DECIDING = {
    **dict.fromkeys(("model", "task", "batchsize", "epochs", "lr")),
    "schedule": "constant",
    **dict.fromkeys(("weight_decay", "crop", "patience", "seed", "dtype", "precision", "min_likelihood", "init_from")),
    **{"sub": False, "train_folds": [*range(1, 9)], "val_folds": [9], "drop_last": True},
    **{"freeze_epochs": 0, "backbone_lr": 1.0, "config": {}},
}


def _command(flags: Mapping[str, Any]) -> str:
    """The command with the flags that decide the result."""
    given = {name: flags[name] for name, usual in _DECIDING.items() if flags.get(name, usual) not in (None, usual)}
    words = [word for name, value in given.items() for word in (f"--{name}", _word(value))]
    return shlex.join(["python", "-m", "experiments.train", *words])


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _thresholds(meta: Meta) -> Iterator[str]:
    yield f"Chosen on fold {_text(meta.training.get('val_folds'))}."
    yield ""
    titles = {"best F1": meta.thresholds, "best sensitivity + specificity (Youden)": meta.youden}
    columns = {title: values for title, values in titles.items() if values}
    rows = [[name, *(_number(values[place]) for values in columns.values())] for place, name in enumerate(meta.classes)]
    yield from _rows(["class", *columns], rows)


def _test(logs: Mapping[str, Any]) -> Iterator[str]:
    metrics = logs["metrics"]
    yield f"{logs['records']:,} records of fold {_text(logs['folds'])} ({logs['data']}), 95 % bootstrap intervals over records."
    yield ""
    rows = [[name, _interval(metrics[name])] for name in HEADLINES if name in metrics]
    rows += [[f"AUC of {name}", _interval(entry)] for name, entry in metrics["class_auc"].items()]
    mean = next(iter(logs["calibration"].values()))["mean"]
    rows.append(["expected calibration error (mean)", f"{mean['ece']:.4f}"])
    if logs.get("temperature"):
        rows.append(["temperature", f"{logs['temperature']:.3f}"])
    yield from _rows(["", "value"], rows)


def _groups(report: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for column, groups in report["by"].items():
        for name, group in groups.items():
            entry = (group["metrics"] or {}).get("macro_auc")
            auc, gap = (
                ("too few records", "") if entry is None else (_interval(entry), _interval(entry["difference"], "+"))
            )
            rows.append([f"{column}: {name}", f"{group['n']:,}", f"{len(group['classes'])}", auc, gap])
    yield from _rows(["group", "records", "classes", "macro AUC of these", "to all others"], rows)


def _sets(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["sets"]
    yield f"Coverage of {found['asked']:g} for each class. {found['assumed']}"
    yield ""
    rows = [
        [name, f"{entry['threshold']:.4f}", str(entry["calibrated_on"]), _interval(entry["coverage"])]
        for name, entry in found["classes"].items()
    ]
    yield from _rows(["class", "ruled out below", "calibrated on", "coverage on the test records"], rows)


def _table(rows: Iterator[tuple[str, Any]]) -> list[str]:
    return list(_rows(["", ""], [[name, str(value)] for name, value in rows]))


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table; what stands in a cell cannot end it."""
    for row in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"


def _text(folds: Any) -> str:
    return ", ".join(map(str, folds)) if folds else "?"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"


def _interval(entry: Mapping[str, Any] | None, sign: str = "") -> str:
    if entry is None or entry["value"] is None:
        return "-"
    return f"{_number(entry['value'], sign)} [{_number(entry['low'], sign)}, {_number(entry['high'], sign)}]"
