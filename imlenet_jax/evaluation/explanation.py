"""What there is to show about one record: its signal, the prediction and, for imle_net, the attention."""

from dataclasses import dataclass

from numpy.typing import NDArray

from imlenet_jax.evaluation.attention import Attention

PURPOSE = "For research, not for diagnosis."


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

    @property
    def predicted(self) -> tuple[bool | None, ...]:
        """Per class whether its probability reaches the threshold; None where there is none."""
        pairs = zip(self.probabilities, self.thresholds, strict=True)
        return tuple(None if limit is None else bool(value >= limit) for value, limit in pairs)

    @property
    def verdict(self) -> str:
        """The predicted classes in words."""
        if None in self.predicted and True not in self.predicted:
            return "no thresholds"
        return ", ".join(name for name, yes in zip(self.classes, self.predicted, strict=True) if yes) or "none"
