"""A trained network to ask: probabilities and attention for ECGs in mV."""

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.exported import by_name, read_exported
from imlenet_jax.checkpoints.reading import load_variables
from imlenet_jax.data.plausibility import typical_deflection, wrong_unit
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.models import create_model, windows
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.runtime.fetching import fetched
from imlenet_jax.runtime.precision import PRECISIONS, precision
from imlenet_jax.runtime.start import devices

SHOWN = 32  # records that are looked at for a wrong unit


def load(
    path: str | Path,
    which: str = "best",
    precision: str | None = None,
    compilation_cache: str | Path | bool | None = None,
) -> "Classifier":
    """Load a trained network from a checkpoint folder, such as `checkpoints/imle_net`, or from an exported file.

    Args:
        path: the folder, or a `.stablehlo` or `.safetensors` file of `experiments.export`.
        which: `best` (by validation macro AUC) or `latest`.
        precision: of multiplications, `default` or `highest`; what it was trained with unless given.
        compilation_cache: a folder where what this process compiles from now on is kept for the next; False for none;
            in the user's cache folder unless given.

    Raises:
        UserError: there is no checkpoint, it is damaged, or of another format; there is no such precision; or JAX does not
            start.

    Warns:
        DataWarning: the program in a file cannot run here. Its weights can.
    """
    if precision not in (None, *PRECISIONS):
        raise UserError(f"precision is {precision!r}: choose one of {', '.join(PRECISIONS)}")
    devices()
    use_cache(compilation_cache)
    if Path(path).is_file():
        found = read_exported(Path(path))
        classifier = Classifier(found.meta, jax.device_put(found.variables), precision)
        return classifier if found.program is None else _with_program(classifier, found.program, path)
    return Classifier(*load_variables(Path(path), which), precision)


def _with_program(classifier: "Classifier", program: bytes, path: str | Path) -> "Classifier":
    """Let the exported program give the answers, if it can run here."""
    try:
        exported = jax.export.deserialize(bytearray(program))
        if jax.export.default_export_platform() not in exported.platforms:  # a GPU is `cuda` or `rocm` there
            raise ValueError(f"it is for {', '.join(exported.platforms)}")
    except Exception as error:  # whatever a jax of another year makes of it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = (
            f"the program in {path} cannot run here ({reason[:200]}): its weights are used with the network of today"
        )
        warnings.warn(message, DataWarning, stacklevel=3)
        return classifier

    def apply(variables: Any, millivolts: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs = dict(exported.call(by_name(variables), millivolts))
        return outputs.pop("probabilities"), outputs

    return classifier.with_program(jax.jit(apply))


class Classifier:
    """A network with its weights, its classes and the preprocessing it was trained with.

    Args:
        meta: the checkpoint's description.
        variables: its weights and statistics.
        precision: of multiplications, `default` or `highest`; the description's unless given.
    """

    def __init__(self, meta: Meta, variables: dict[str, Any], precision: str | None = None):
        self.meta = meta
        self.variables = variables
        self.task = meta.asked
        self.network: Any = create_model(meta.model, meta.network_config)
        self.precision = precision or meta.precision
        known = self.network, self.task.exclusive, meta.scaling, self.precision
        self._outputs, self._logits = partial(_probabilities, *known), partial(_logits, *known)
        self._apply: Callable[..., Any] = jax.jit(self._outputs)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return tuple(self.meta.classes)

    @property
    def leads(self) -> tuple[str, ...]:
        """The leads, in the order that signals must have."""
        return tuple(self.meta.leads)

    @property
    def sampling_rate(self) -> int:
        """Samples per second that signals must have."""
        return self.meta.sampling_rate

    @property
    def samples(self) -> int:
        """Samples that signals must have: those of a record, which the network may take in windows."""
        config: Any = self.network.config  # not the meta's, which is checked anew, slowly, whenever it is asked for
        return self.meta.samples or config.length

    @property
    def attends(self) -> bool:
        """Whether the network says where it looked, which only imle_net does, and only where it takes records whole."""
        return self.meta.model == "imle_net" and not self.meta.samples

    @property
    def logits(self) -> jax.tree_util.Partial:
        """ECGs in mV, a JAX array `(n, time, leads)`, to logits `(n, classes)`: to be differentiated and compiled.

        The weights are arguments of what is compiled, not constants in it.
        """
        return jax.tree_util.Partial(self._logits, self.variables)

    @property
    def outputs(self) -> Callable[..., Any]:
        """Weights, and ECGs in mV `(n, time, leads)`, to probabilities `(n, classes)` and a dict of the attention."""
        return self._outputs

    def with_program(self, apply: Callable[..., Any]) -> "Classifier":
        """The same network, whose answers another program gives; it takes what `outputs` takes."""
        other = copy.copy(self)
        other._apply = apply
        return other

    def with_variables(self, variables: dict[str, Any]) -> "Classifier":
        """The same network with other weights, which shares what was compiled."""
        other = copy.copy(self)
        other.variables = variables
        return other

    def predict_proba(self, signals: np.ndarray, batchsize: int = 32) -> np.ndarray:
        """Class probabilities, `(n, classes)` float32; those of exclusive classes sum to one.

        Args:
            signals: `(n, time, leads)` in mV, at `sampling_rate`, leads in the order of `leads`; not standardised.
            batchsize: records per call of the compiled network.

        Raises:
            UserError: the signals have another shape, or hold NaN or infinite values.

        Warns:
            DataWarning: no ECG in mV deflects by so little or so much.
        """
        return self._run(signals, batchsize, lambda probabilities, aux: probabilities)

    def attend(self, signals: np.ndarray, batchsize: int = 32) -> dict[str, np.ndarray]:
        """The attention of imle_net: `beat` (n, leads, windows, positions), `rhythm` (n, leads, windows), `channel` (n, leads).

        Each sums to one over its last axis. Takes what `predict_proba` takes; `UserError` for the other networks,
        which have no attention.
        """
        if not self.attends:
            why = f"over windows (--crop {self.meta.training.get('crop')}) " if self.meta.model == "imle_net" else ""
            raise UserError(
                f"{self.meta.model} {why}has no attention: only imle_net on whole records can be asked where it looked"
            )
        return self._run(signals, batchsize, lambda probabilities, aux: aux)

    def _run(self, signals: np.ndarray, batchsize: int, pick: Callable[..., Any]) -> Any:
        signals = self._checked(signals)
        if batchsize < 1:
            raise UserError(f"batchsize is {batchsize}, not a whole number of at least 1")
        # Padding to one shape keeps one compiled program; a short input is not padded beyond its own size.
        size = min(batchsize, len(signals))

        def outputs() -> Iterator[Any]:
            for start in range(0, len(signals), size):
                batch = signals[start : start + size]
                padding = size - len(batch)
                batch = np.concatenate([batch, np.repeat(batch[-1:], padding, axis=0)]) if padding else batch
                yield pick(*self._apply(self.variables, jax.device_put(batch)))

        # The next batches are on their way before the result of one is waited for.
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(signals)], *fetched(outputs()))

    def _checked(self, signals: np.ndarray) -> np.ndarray:
        try:
            signals = np.asarray(signals)
        except ValueError as error:
            raise UserError(f"signals are no array ({error}): give each record the same number of samples") from None
        expected = (self.samples, len(self.leads))
        if signals.ndim != 3 or signals.shape[1:] != expected or len(signals) == 0:
            hint = "; the last two axes are swapped" if signals.shape[1:] == expected[::-1] else ""
            raise UserError(f"signals have shape {signals.shape}, not (n, {expected[0]}, {expected[1]}){hint}")
        if signals.dtype.kind not in "fiu":
            raise UserError(f"signals are {signals.dtype}, not numbers in mV")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused
            signals = signals.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(signals).all(axis=(1, 2)))
        if bad.size:
            raise UserError(f"record {bad[0]} of the signals holds NaN or infinite values; leave it out or mend it")
        # Of a few records: many are hardly all wrong in different ways.
        deflection = typical_deflection(signals[:SHOWN], self.sampling_rate)
        for finding in wrong_unit(deflection, twelve=len(self.leads) == len(LEADS)):
            warnings.warn(f"signals: {finding}", DataWarning, stacklevel=4)
        return signals


def _answer(
    network: Any, exclusive: bool, scaler: Any, level: str, variables: Any, millivolts: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits, and the attention."""
    with precision(level):
        return windows.apply(network, variables, (millivolts - scaler.mean) / scaler.std, exclusive)


def _probabilities(network: Any, exclusive: bool, *rest: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    logits, aux = _answer(network, exclusive, *rest)
    return (jax.nn.softmax if exclusive else jax.nn.sigmoid)(logits), aux


def _logits(*arguments: Any) -> jax.Array:
    return _answer(*arguments)[0]
