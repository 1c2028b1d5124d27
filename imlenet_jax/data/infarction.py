"""The sub-diagnosis of myocardial infarction: anteroseptal, inferior, or a normal ECG.

What counts and the leaking split are the reference's (`preprocessing/sub_preprocess.py`).
"""

import numpy as np

LIKELIHOODS = {"ASMI": (0, 80, 100), "IMI": (0, 80, 100), "NORM": (100,)}
"""Each class, which is a statement of its own, and the likelihoods in percent (0: "not stated") that count."""

CLASSES = tuple(LIKELIHOODS)


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
