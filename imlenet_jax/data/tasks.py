"""What a network is asked: its classes, how they exclude each other, and the labels of records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imlenet_jax.data.infarction import CLASSES, LIKELIHOODS
from imlenet_jax.data.ptbxl import SUPERCLASSES, Statement

SUPERCLASS = "superclass"
PTBXL_TASKS = (SUPERCLASS, "subclass", "diagnostic", "all", "form", "rhythm")


@dataclass(frozen=True)
class Task:
    """A question to a network.

    Attributes:
        name: as flags and checkpoints have it.
        classes: in the order of the network's outputs.
        statements: each statement that counts -> its class. Empty where only a network is asked, and no record.
        exclusive: whether a record has exactly one class (softmax) or any number (sigmoid).
        unlabelled: whether a record may have none of the classes; else one without a class is left out.
        counted: the likelihoods at which a statement counts; at any likelihood where left out.
    """

    name: str
    classes: tuple[str, ...]
    statements: Mapping[str, str] = field(default_factory=dict)
    exclusive: bool = False
    unlabelled: bool = False
    counted: Mapping[str, tuple[float, ...]] | None = None

    def labels(self, scp_codes: Sequence[Mapping[str, float]], min_likelihood: float | None = None) -> np.ndarray:
        """The classes of each record: (n, classes) uint8, 0 or 1; a row of zeros has none.

        A statement counts whatever its likelihood, 0 included, as in the PTB-XL benchmark and IMLE-Net. A record with
        several of exclusive classes has none.

        Args:
            scp_codes: per record, statement -> likelihood in percent.
            min_likelihood: drop statements with 0 < likelihood < this. A likelihood of 0 means in PTB-XL that none was
                stated, not that the statement is unlikely, so such statements stay.
        """
        column = {code: self.classes.index(name) for code, name in self.statements.items()}
        labels = np.zeros((len(scp_codes), len(self.classes)), np.uint8)
        for row, codes in enumerate(scp_codes):
            for code, likelihood in codes.items():
                if code not in column or (min_likelihood is not None and 0 < likelihood < min_likelihood):
                    continue
                if self.counted is None or likelihood in self.counted[code]:
                    labels[row, column[code]] = 1
        if self.exclusive:
            labels[labels.sum(axis=1) > 1] = 0
        return labels

    def takes(self, labels: np.ndarray) -> np.ndarray:
        """Which records (n,) bool the task is about, by their labels (n, classes)."""
        return np.ones(len(labels), bool) if self.unlabelled else (labels != 0).any(axis=1)

    def log_odds(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Log-odds of each class `(n, classes)` from a network's logits; their sigmoid is the class's probability.

        What holds for the logits of several labels (AUC by them, probabilities by sigmoid) then holds for a softmax.
        """
        values = np.asarray(logits, np.float64)
        if not self.exclusive:
            return values
        others = ~np.eye(values.shape[-1], dtype=bool)
        return values - np.stack([np.logaddexp.reduce(values[..., other], axis=-1) for other in others], axis=-1)


SUB = Task("sub-diagnosis of MI", CLASSES, {name: name for name in CLASSES}, exclusive=True, counted=LIKELIHOODS)


def ptbxl_tasks(statements: Sequence[Statement]) -> dict[str, Task]:
    """The six tasks of the PTB-XL benchmark, by name; those of which the table has no statement are left out.

    Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989: the statements marked diagnostic, form or rhythm, all of them,
    and the diagnostic ones brought together by subclass and superclass. Classes are sorted by name.
    """
    diagnostic = [statement for statement in statements if statement.diagnostic]
    classes = {
        SUPERCLASS: {each.code: each.superclass for each in diagnostic if each.superclass},
        "subclass": {each.code: each.subclass for each in diagnostic if each.superclass and each.subclass},
        "diagnostic": {each.code: each.code for each in diagnostic},
        "all": {each.code: each.code for each in statements if each.diagnostic or each.form or each.rhythm},
        "form": {each.code: each.code for each in statements if each.form},
        "rhythm": {each.code: each.code for each in statements if each.rhythm},
    }
    names = {name: tuple(sorted(set(of.values()))) for name, of in classes.items()} | {SUPERCLASS: SUPERCLASSES}
    return {name: Task(name, names[name], of) for name, of in classes.items() if of or name == SUPERCLASS}
