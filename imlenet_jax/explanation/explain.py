"""What there is to show about one record: its signal, the prediction and, for imle_net, the attention."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.data.ecg import ECG
from imlenet_jax.errors import DataWarning
from imlenet_jax.evaluation.metrics import most_probable, possible
from imlenet_jax.explanation.attention import Attention, attention_maps
from imlenet_jax.explanation.saliency import integrated_gradients

if TYPE_CHECKING:
    from imlenet_jax.classifier import Classifier

MAPS = ("both", "attention", "gradients")
GRADIENTS = (
    "Integrated gradients say what each sample, as it departs from its lead's median, adds to the logit of the class or takes "
    "from it. On 20 real records they told better than the attention of imle_net which leads and half-seconds a prediction "
    "hangs on; neither was found to follow an infarction."
)

PURPOSE = "For research, not for diagnosis."

# Little weight to much: part of viridis, whose lightness falls evenly, so that grey print and colour-blind readers see
# the same order; its light end is left out, since a trace must be legible on paper.
COLOURS = ("#44bf70", "#22a884", "#21918c", "#2a788e", "#355f8d", "#414487", "#482475", "#440154")


class Sets(NamedTuple):
    """When a class is ruled out (`imlenet_jax.evaluation.conformal`).

    Attributes:
        coverage: the share of the records of each class for which it is promised not to be.
        limits: per class the probability below which it is; None where too few records had it.
    """

    coverage: float
    limits: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One window of one record, as the network saw it, and what the network said.

    Attributes:
        name: the record's name, with the window's where there are several.
        signal_mv: (length, leads), in mV.
        sampling_rate: Hz.
        leads, classes: their names, in the order of the arrays.
        probabilities: (classes,), 0 to 1.
        thresholds: a class is predicted from this probability on; None where there is none.
        notes: sentences for the reader, such as what was changed in the record.
        attention: that of this record, without the first axis (`Attention.record`); None for networks without.
        exclusive: whether a record has exactly one of the classes: then the most probable one is predicted.
        sets: when a class is ruled out; None where that was not asked for.
        gradients: by class `(leads, length)`, what each sample adds to its logit (integrated gradients); empty where that
            was not asked for.
    """

    name: str
    signal_mv: NDArray
    sampling_rate: int
    leads: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray
    thresholds: tuple[float | None, ...]
    notes: tuple[str, ...] = ()
    attention: Attention | None = None
    exclusive: bool = False
    sets: Sets | None = None
    gradients: Mapping[str, NDArray] = field(default_factory=dict)

    @property
    def possible(self) -> tuple[bool | None, ...]:
        """Per class whether it cannot be ruled out; None where that is not known."""
        limits = self.sets.limits if self.sets else (None,) * len(self.classes)
        kept = possible(self.probabilities, np.array(limits, np.float64))  # None becomes NaN
        return tuple(None if limit is None else bool(yes) for yes, limit in zip(kept, limits, strict=True))

    @property
    def not_ruled_out(self) -> str:
        """The classes that cannot be ruled out, in words; empty where that was not asked for."""
        if self.sets is None:
            return ""
        names = ", ".join(name for name, yes in zip(self.classes, self.possible, strict=True) if yes) or "none"
        unknown = ", ".join(name for name, yes in zip(self.classes, self.possible, strict=True) if yes is None)
        return names + (f" (not judged: {unknown})" if unknown else "")

    @property
    def predicted(self) -> tuple[bool | None, ...]:
        """Per class whether its probability reaches the threshold, or is the highest; None where neither counts."""
        if self.exclusive:
            return tuple(most_probable(self.probabilities[None])[0].tolist())
        pairs = zip(self.probabilities, self.thresholds, strict=True)
        return tuple(None if limit is None else bool(value >= limit) for value, limit in pairs)

    @property
    def verdict(self) -> str:
        """The predicted classes in words."""
        if all(yes is None for yes in self.predicted):
            return "no thresholds"
        return ", ".join(name for name, yes in zip(self.classes, self.predicted, strict=True) if yes) or "none"

    def most_probable(self, count: int) -> list[tuple[str, float, float | None, bool | None]]:
        """Name, probability, threshold and decision of so many classes: all in their order, or of more the most probable."""
        rows = list(zip(self.classes, map(float, self.probabilities), self.thresholds, self.predicted, strict=True))
        return rows if len(rows) <= count else sorted(rows, key=lambda row: -row[1])[:count]

    def most_attended(self, count: int = 3) -> list[tuple[str, float]]:
        """The leads of most weight and their share of the attention, largest first; empty without attention."""
        if self.attention is None:
            return []
        order = np.argsort(-self.attention.channel, kind="stable")[:count]
        return [(self.leads[place], float(self.attention.channel[place])) for place in order]

    def by_lead(self, name: str) -> list[tuple[str, float]]:
        """The leads and what each adds to the logit of a class by its gradients, the largest first."""
        sums = self.gradients[name].sum(axis=1)
        return [(self.leads[place], float(sums[place])) for place in np.argsort(-sums, kind="stable")]

    def as_json(self) -> dict[str, Any]:
        """Prediction and notes, and the attention by lead and by window, in JSON types; no signal, no beat level."""
        columns = (self.classes, self.probabilities, self.thresholds, self.predicted)
        described: dict[str, Any] = {
            "purpose": PURPOSE,
            "name": self.name,
            "notes": list(self.notes),
            "classes": {
                name: {"probability": float(probability), "threshold": threshold, "predicted": predicted}
                for name, probability, threshold, predicted in zip(*columns, strict=True)
            },
        }
        if self.sets is not None:
            described["coverage"] = self.sets.coverage
            for entry, yes in zip(described["classes"].values(), self.possible, strict=True):
                entry["possible"] = yes
        for name in self.gradients:
            described["classes"][name]["logit_by_lead"] = dict(self.by_lead(name))
        if self.attention is not None:
            described["most_attended_leads"] = [lead for lead, _ in self.most_attended()]
            described["attention"] = {
                lead: {"share": float(share), "windows": windows.tolist()}
                for lead, share, windows in zip(self.leads, self.attention.channel, self.attention.rhythm, strict=True)
            }
        return described


def explain(
    classifier: "Classifier",
    ecgs: Sequence[ECG],
    batchsize: int = 32,
    sets: Sets | None = None,
    maps: str = "attention",
    explained: Sequence[str] = (),
) -> list[Explanation]:
    """Predict ECGs and say where the network looked and, with `sets`, which classes cannot be ruled out.

    `maps` is one of `MAPS`. Gradients are of the classes `explained`, by default of those that are predicted, or of the most
    probable one where none is.

    They run in batches of exactly `batchsize`, the last one filled up, so that one program is compiled for any number.

    Raises:
        UserError: an ECG is not `complete`, or was read for another network's leads or length.
    """
    signals = np.stack([ecg.signal_mv for ecg in ecgs])
    full = _filled(signals, batchsize)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the findings of each ECG say the same, and which
        probabilities = classifier.predict_proba(full, batchsize)
        attended = classifier.attends and maps != "gradients"
        attention = attention_maps(classifier, full, batchsize) if attended else None
    found = [
        Explanation(
            name=ecg.name,
            signal_mv=ecg.signal_mv,
            sampling_rate=classifier.sampling_rate,
            leads=classifier.leads,
            classes=classifier.classes,
            probabilities=probabilities[row],
            thresholds=tuple(classifier.meta.thresholds or [None] * len(classifier.classes)),
            notes=(*(f"implausible: {finding}" for finding in ecg.findings), *ecg.notes),
            attention=None if attention is None else attention.record(row),
            exclusive=classifier.task.exclusive,
            sets=sets,
        )
        for row, ecg in enumerate(ecgs)
    ]
    return found if maps == "attention" else _with_gradients(classifier, found, explained, batchsize)


def _filled(array: NDArray, batchsize: int) -> NDArray:
    """An array (n, ...) with its last row repeated until batches of this size are full."""
    return np.concatenate([array, np.repeat(array[-1:], -len(array) % batchsize, axis=0)])


def _with_gradients(
    classifier: "Classifier", explanations: Sequence[Explanation], explained: Sequence[str], batchsize: int
) -> list[Explanation]:
    """The same with the integrated gradients of their classes, all in batches of one size."""
    pairs = []
    for row, explanation in enumerate(explanations):
        predicted = [name for name, yes in zip(explanation.classes, explanation.predicted, strict=True) if yes]
        best = explanation.classes[int(np.argmax(explanation.probabilities))]
        pairs += [(row, name) for name in (*explained,) or predicted or [best]]
    signals = np.stack([explanations[row].signal_mv for row, _ in pairs])
    targets = np.array([classifier.classes.index(name) for _, name in pairs])
    signals, targets = _filled(signals, batchsize), _filled(targets, batchsize)
    gradients = integrated_gradients(classifier.logits, signals, targets, batchsize=batchsize)
    of_record: list[dict[str, NDArray]] = [{} for _ in explanations]
    for (row, name), gradient in zip(pairs, gradients, strict=False):
        of_record[row][name] = gradient
    return [replace(each, gradients=own) for each, own in zip(explanations, of_record, strict=True)]
