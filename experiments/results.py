"""What a test prints and writes: metrics, decisions, calibration; sets of classes and groups of records where asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.data.loader import Split
from imlenet_jax.data.manifest import OWN
from imlenet_jax.data.tasks import SUB, SUPERCLASS, Task
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.calibration import calibration, fit_temperature, format_calibration, reliability, tempered
from imlenet_jax.evaluation.conformal import evaluate_sets, format_sets, sets_frame, thresholds_of
from imlenet_jax.evaluation.confusion import confusion, format_confusion, matrix
from imlenet_jax.evaluation.diagrams import draw_groups, draw_reliability, png
from imlenet_jax.evaluation.groups import evaluate_groups, format_groups, groups_frame
from imlenet_jax.evaluation.metrics import most_probable
from imlenet_jax.evaluation.report import MANY, commonest, evaluate, format_table, predictions_frame, sigmoid
from imlenet_jax.explanation.explain import Sets
from imlenet_jax.files import read_json, write_atomically, write_json

FEW = 5  # classes that a figure of groups shows


@dataclass(frozen=True, eq=False)
class Tested:
    """What a network said of the records of a split.

    Attributes:
        name: of the run.
        meta: its checkpoint's description.
        task: what it was asked.
        split: the records, of the data set.
        logits: (n, classes) float.
        which: `test` or `val`.
        precision: of multiplications.
        validation, validated: other records and their logits, to fit to; None unless asked for.
    """

    name: str
    meta: Meta
    task: Task
    split: Split
    logits: NDArray
    which: str
    precision: str
    validation: Split | None = None
    validated: NDArray | None = None

    @property
    def about(self) -> dict[str, Any]:
        """Which network and which records, in JSON types."""
        meta, split = self.meta, self.split
        return {
            **_weights(meta),
            "split": self.which,
            "folds": list(split.folds),
            "records": len(split),
            "precision": self.precision,
            **({"sub_split": meta.training.get("sub_split")} if self.task.name == SUB.name else {}),
            "data": split.dataset.source,
            "data_fingerprint": split.dataset.fingerprint,
        }

    @property
    def title(self) -> str:
        """For figures."""
        return f"{self.name}, {self.which}, {len(self.split):,} records"


class Files:
    """The files of a test: `<folder>/<start>_<ending>`, each written whole; its text lists them."""

    def __init__(self, folder: Path, start: str):
        self._folder, self._start = folder, start
        self._written: dict[str, Path] = {}

    def write(self, kind: str, ending: str, content: Mapping[str, Any] | pd.DataFrame | Figure) -> None:
        """Write a dict as JSON, a table as CSV or a figure as PNG."""
        path = self._written[kind] = self._folder / f"{self._start}_{ending}"
        if isinstance(content, pd.DataFrame):
            write_atomically(path, content.to_csv(index=False).encode())
        elif isinstance(content, Figure):
            write_atomically(path, png(content))
        else:
            write_json(path, content)

    def __str__(self) -> str:
        return "   ".join(f"{kind}: {path}" for kind, path in self._written.items())


def write_metrics(tested: Tested, files: Files, temperature: bool) -> dict[str, Any]:
    """Metrics, decisions and calibration, also with a fitted temperature; returns the metrics."""
    meta, task, split, logits = tested.meta, tested.task, tested.split, tested.logits
    report = evaluate(
        split.labels, task.log_odds(logits), meta.classes, _limits(meta.thresholds), exclusive=task.exclusive
    )
    published = split.dataset.source == "PTB-XL" and task.name == SUPERCLASS
    print(format_table(report, meta.model if published else None), end="\n\n")
    decisions = decide(meta, task, split.labels, logits)
    probabilities, fitted = {"as trained": tempered(task, logits)}, None
    if temperature and tested.validation is not None and tested.validated is not None:
        fitted = fit_temperature(task, tested.validation.labels, tested.validated)
        probabilities[f"temperature {fitted:.3f}"] = tempered(task, logits, fitted)
    calibrations = {name: calibration(split.labels, p, meta.classes) for name, p in probabilities.items()}
    few = len(meta.classes) <= MANY
    print(
        format_calibration(calibrations if few else {name: {"mean": of["mean"]} for name, of in calibrations.items()})
    )

    found = {"metrics": report, "confusion": decisions, "temperature": fitted, "calibration": calibrations}
    files.write("metrics", "logs.json", tested.about | found)
    frame = predictions_frame(split.ecg_id, split.labels, probabilities["as trained"], meta.classes, _names(split))
    files.write("predictions", "predictions.csv", frame)
    curves = {name: reliability(split.labels, p) for name, p in probabilities.items()}
    shown = commonest(report["positives"])
    kept = "" if few else f", the {len(shown)} commonest of {len(meta.classes)} classes"
    figure = draw_reliability(curves, meta.classes, f"Reliability of {tested.title}{kept}", shown)
    files.write("reliability", "reliability.png", figure)
    return report


def write_sets(tested: Tested, files: Files, coverage: float) -> NDArray:
    """Sets of the classes that cannot be ruled out; returns their thresholds (classes,), NaN where there is none."""
    assert tested.validation is not None and tested.validated is not None
    meta, split, validation = tested.meta, tested.split, tested.validation
    probabilities = tempered(tested.task, tested.logits)
    calibrated = validation.labels, tempered(tested.task, tested.validated)
    found = evaluate_sets(calibrated, (split.labels, probabilities), meta.classes, coverage)
    print(f"\n{format_sets(found)}")
    limits = thresholds_of(found, meta.classes)
    calibrated_on = {"folds": list(validation.folds), "records": len(validation)}
    files.write("sets", "sets.json", tested.about | {"calibrated_on": calibrated_on, "sets": found})
    frame = sets_frame(split.ecg_id, split.labels, probabilities, limits, meta.classes, _names(split))
    files.write("per record", "sets.csv", frame)
    return limits


def read_sets(path: Path, meta: Meta) -> Sets:
    """The sets that `write_sets` has written for the network with this description.

    Raises:
        UserError: there is no such file, it is damaged, or is of another network.
    """
    redo = "make it with python -m experiments.test --coverage 0.9"
    try:
        content = read_json(path)
        found, theirs = content["sets"], {key: content[key] for key in _weights(meta)}
        limits = thresholds_of(found, meta.classes)
        asked = float(found["asked"])
        if not (np.isnan(limits) | ((limits >= 0) & (limits <= 1))).all() or not 0 < asked < 1:
            raise ValueError
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"--sets {path}: no such file; {redo}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--sets {path} is not a file of sets, or is damaged: {redo}") from None
    if theirs != _weights(meta):
        raise UserError(
            f"--sets {path} was made for other weights ({theirs['model']}, epoch {theirs['epoch']}) than the checkpoint's "
            f"({meta.model}, epoch {meta.epoch}): {redo}"
        )
    return Sets(asked, tuple(None if np.isnan(limit) else float(limit) for limit in limits))


def read_tests(log_dir: Path, name: str, meta: Meta) -> dict[str, Any]:
    """What tests of this network on its test folds have left in `log_dir`: `logs`, `groups`, `sets`, as far as there are.

    Groups and sets of other records than those of the logs are left out.
    """
    found = {}
    for kind in ("logs", "groups", "sets"):
        try:
            content = read_json(log_dir / f"{name}_test_{kind}.json")
            if {key: content[key] for key in _weights(meta)} == _weights(meta):
                found[kind] = content
        except (OSError, ValueError, LookupError, TypeError):
            pass  # not there, or not of this network
    records = [
        {key: content.get(key) for key in ("data_fingerprint", "folds", "records")} for content in found.values()
    ]
    return {kind: content for (kind, content), of in zip(found.items(), records, strict=True) if of == records[0]}


def _names(split: Split) -> NDArray | None:
    """What own recordings are called; PTB-XL's are known by their ecg_id."""
    dataset = split.dataset
    if dataset.source != OWN:
        return None
    names = zip(dataset.about["record"][split.rows], dataset.about["window"][split.rows], strict=True)
    return np.array([f"{record} {window}".strip() for record, window in names])


def _weights(meta: Meta) -> dict[str, Any]:
    """What tells one trained network from another."""
    return {
        "model": meta.model,
        "task": meta.task,
        "epoch": meta.epoch,
        "classes": meta.classes,
        "checksum": meta.checksums.get("variables"),
    }


def write_groups(
    tested: Tested, files: Files, columns: Mapping[str, Mapping[str, NDArray[np.bool_]]], limits: NDArray | None
) -> None:
    """Metrics in groups of records (`data.groups`), with the coverage of sets where these have ``limits``."""
    meta, task, split = tested.meta, tested.task, tested.split
    log_odds = task.log_odds(tested.logits)
    found = evaluate_groups(
        split.labels, log_odds, meta.classes, columns, _limits(meta.thresholds), task.exclusive, limits, progress=True
    )
    print(f"\n{format_groups(found)}")
    files.write("groups", "groups.json", tested.about | found)
    files.write("their table", "groups.csv", groups_frame(found))
    if not any(group["metrics"] for groups in found["by"].values() for group in groups.values()):
        return
    positives = dict(zip(meta.classes, split.labels.sum(axis=0), strict=True))
    files.write(
        "their figure", "groups.png", draw_groups(found, commonest(positives, FEW), f"Groups of {tested.title}")
    )


def decide(meta: Meta, task: Task, labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Print and return right and wrong decisions: at each choice of thresholds, or of the most probable class."""
    if task.exclusive:
        predicted = most_probable(logits)
        found = confusion(labels, predicted, meta.classes)
        print(f"{format_confusion(found, 'decisions: the most probable class')}\n")
        return {"most_probable": found, "matrix": matrix(labels, predicted, meta.classes)}
    decisions = {}
    for name, title, stored in (
        ("max_f1_thresholds", "decisions at the thresholds of the best F1 on the validation folds", meta.thresholds),
        (
            "youden_thresholds",
            "decisions at the thresholds of the best sensitivity + specificity there (Youden)",
            meta.youden,
        ),
    ):
        if (limits := _limits(stored)) is not None:
            decisions[name] = confusion(labels, sigmoid(logits) >= limits, meta.classes, limits)
            if len(meta.classes) <= MANY:
                print(f"{format_confusion(decisions[name], title)}\n")
    return decisions


def _limits(stored: list[float | None] | None) -> np.ndarray | None:
    return None if stored is None else np.array(stored, float)
