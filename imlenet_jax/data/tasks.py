"""What a network is asked: its classes, how they exclude each other, and the labels of records."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imlenet_jax.data import infarction
from imlenet_jax.data.ptbxl import SUPERCLASSES, superclass_labels
from imlenet_jax.errors import UserError


@dataclass(frozen=True)
class Task:
    """A question to a network.

    Attributes:
        name: as checkpoints have it.
        classes: in the order of the network's outputs.
        exclusive: whether a record has exactly one of them (softmax) or any number (sigmoid).
        labels: `(n, classes)` 0 or 1, from what `superclass_labels` takes; a row of zeros is left out.
    """

    name: str
    classes: tuple[str, ...]
    exclusive: bool
    labels: Callable[..., np.ndarray]

    def log_odds(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Log-odds of each class `(n, classes)` from a network's logits; their sigmoid is the class's probability.

        What holds for the logits of several labels (AUC by them, probabilities by sigmoid) then holds for a softmax.
        """
        values = np.asarray(logits, np.float64)
        if not self.exclusive:
            return values
        others = ~np.eye(values.shape[-1], dtype=bool)
        return values - np.stack([np.logaddexp.reduce(values[..., other], axis=-1) for other in others], axis=-1)


SUPERCLASS = Task("superclass", SUPERCLASSES, exclusive=False, labels=superclass_labels)
SUB = Task("sub-diagnosis of MI", infarction.CLASSES, exclusive=True, labels=infarction.infarction_labels)
TASKS = {task.name: task for task in (SUPERCLASS, SUB)}


def get_task(name: str) -> Task:
    """A task by name; `UserError` where this version knows none of that name."""
    if name not in TASKS:
        raise UserError(
            f"the checkpoint is for the task '{name}', which this version does not know: update imlenet_jax"
        )
    return TASKS[name]
