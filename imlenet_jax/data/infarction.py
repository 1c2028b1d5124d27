"""The sub-diagnosis of myocardial infarction: anteroseptal, inferior, or a normal ECG.

Labels and the leaking split are the reference's (`preprocessing/sub_preprocess.py`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

LIKELIHOODS = {"ASMI": (0, 80, 100), "IMI": (0, 80, 100), "NORM": (100,)}
"""Each class, which is a statement of its own, and the likelihoods in percent (0: "not stated") that count."""

CLASSES = tuple(LIKELIHOODS)


def infarction_labels(
    scp_codes: Sequence[Mapping[str, float]], statements: Mapping[str, str], min_likelihood: float | None = None
) -> np.ndarray:
    """The class of each record that has exactly one: (n, 3) uint8, one column per entry of CLASSES, else a row of zeros.

    Takes what `superclass_labels` takes; `statements` is not needed.
    """
    labels = np.zeros((len(scp_codes), len(CLASSES)), np.uint8)
    for row, codes in enumerate(scp_codes):
        for column, (code, counted) in enumerate(LIKELIHOODS.items()):
            likelihood = codes.get(code)
            if likelihood in counted and not (min_likelihood is not None and 0 < likelihood < min_likelihood):
                labels[row, column] = 1
    labels[labels.sum(axis=1) > 1] = 0
    return labels


def reference_split(labels: np.ndarray, fold: np.ndarray, training: bool) -> np.ndarray:
    """Rows of the records that the reference trains on; or of those that it selects the epoch by, and tests on.

    It leaks: the normal records of its test, from fold 3, trained the 5-class network that training starts from.
    """
    normal = labels[:, CLASSES.index("NORM")] > 0
    infarction = labels.any(axis=1) & ~normal
    if training:
        parts = (np.flatnonzero(infarction & (fold <= 8)), np.flatnonzero(normal & (fold <= 2))[:900])
    else:
        parts = (np.flatnonzero(infarction & (fold > 8)), np.flatnonzero(normal & (fold == 3))[:200])
    return np.sort(np.concatenate(parts))
