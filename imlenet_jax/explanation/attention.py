"""Where imle_net looked: its three levels of attention, and one map of them all.

Two limits belong beside every picture of these maps. Windows are fixed half-seconds, not heart beats. And a position
inside a window sees nearly all of it (the receptive field of 183 samples is wider than the window of 50), so that the
beat level says little about where inside a window.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIMITS = (
    "Windows are fixed half-seconds, not heart beats, and each of the positions inside one sees nearly the whole window: "
    "the map says which leads and half-seconds were weighted, hardly where inside them."
)


class Attention(NamedTuple):
    """The weights of each level, float64, each summing to one over its last axis; `combined` over its last two.

    Attributes:
        beat: (n, leads, windows, positions), (n, 12, 20, 13) at 100 Hz: positions within each window.
        rhythm: (n, leads, windows): windows within each lead.
        channel: (n, leads): leads within the record.
        combined: (n, leads, length): the product of the three on samples, comparable across windows and leads.
    """

    beat: Array
    rhythm: Array
    channel: Array
    combined: Array

    def record(self, index: int) -> "Attention":
        """The attention of one record, without the first axis."""
        return Attention(*(level[index] for level in self))


def attention_maps(classifier: Any, signals_mv: NDArray, batchsize: int = 32) -> Attention:
    """The attention of a `Classifier` of imle_net for ECGs in mV, `(n, length, leads)` as `predict_proba` takes them.

    Raises:
        UserError: the network has no attention, or the signals do not fit it.
    """
    levels = classifier.attend(signals_mv, batchsize)
    beat, rhythm, channel = (_shares(levels[name]) for name in ("beat", "rhythm", "channel"))
    return Attention(beat, rhythm, channel, combine(beat, rhythm, channel, np.shape(signals_mv)[1]))


def combine(beat: NDArray, rhythm: NDArray, channel: NDArray, length: int) -> Array:
    """One map of all three levels on samples: `(n, leads, length)` float64 that sums to one per record.

    Takes `beat` (n, leads, windows, positions), `rhythm` (n, leads, windows) and `channel` (n, leads); each is scaled to
    sum to one over its last axis. Every window holds exactly the mass `channel * rhythm`, spread over its samples as
    `on_samples` says; windows are therefore comparable within a record, across leads too.

    Raises ValueError unless `length` is a multiple of the number of windows.
    """
    windows = np.shape(beat)[2]
    if length % windows:
        raise ValueError(f"{length} samples do not divide into {windows} windows")
    mass = _shares(channel)[..., None] * _shares(rhythm)
    samples = mass[..., None] * on_samples(beat, length // windows)
    return samples.reshape(*samples.shape[:-2], length)


def on_samples(beat: NDArray, window: int) -> Array:
    """Weights of positions `(..., positions)` as weights of the samples of a window `(..., window)`, summing to one.

    Linear interpolation between the samples that positions are centred on, constant outside the outermost, then scaled
    to the window's mass. Equal weights stay equal; what a single position holds is not kept, only what the window holds.
    """
    positions = np.shape(beat)[-1]
    nearest = np.interp(np.arange(window), centres(positions, window), np.arange(positions))
    below = np.minimum(nearest.astype(int), positions - 1)
    above = np.minimum(below + 1, positions - 1)
    share = nearest - below
    beat = np.asarray(beat, np.float64)
    return _shares(beat[..., below] * (1 - share) + beat[..., above] * share)


def centres(positions: int, window: int) -> Array:
    """The sample that each position is centred on, counted from 0 in its window: 4 p + 1.5 for 13 positions of 50 samples.

    Each convolution of stride 2 halves the window, rounding up (50, 25, 13), and its 8 taps with SAME padding reach from
    2 p - 3 to 2 p + 4, centred on 2 p + 0.5. Two of them make 4 p + 1.5: the middle of the samples 4 p to 4 p + 3 that
    the stride steps over. Shortcuts read sample 4 p itself.
    """
    stride = 2 ** np.ceil(np.log2(window / positions))
    return stride * np.arange(positions) + (stride - 1) / 2


def _shares(weights: NDArray) -> Array:
    weights = np.asarray(weights, np.float64)
    return weights / weights.sum(axis=-1, keepdims=True)
