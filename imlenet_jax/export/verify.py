"""Does the exported program say what the network says? Asked before anything is written."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import numpy as np
from numpy.typing import NDArray

from imlenet_jax.checkpoints.exported import by_name
from imlenet_jax.classifier import Classifier
from imlenet_jax.data.electrodes import record
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.synthetic import SAMPLING_RATE, patients
from imlenet_jax.errors import UserError
from imlenet_jax.export.program import INPUT, output_names

BATCHES = (1, 7, 64)
LIMIT = 1e-5
"""The largest difference of a probability or a weight of attention."""

Run = Callable[[NDArray[np.float32]], Mapping[str, NDArray]]


def synthetic_ecgs(classifier: Classifier, n: int = max(BATCHES), seed: int = 0) -> NDArray[np.float32]:
    """ECGs (n, samples, leads) in mV of synthetic patients, repeated or cut to the network's length and rate."""
    hearts = (patient.heart for patient in patients(seed))
    twelve = np.stack([record(next(hearts), np.random.default_rng([seed, number]))[0] for number in range(n)]) / 1000
    time = np.arange(classifier.samples) * SAMPLING_RATE / classifier.sampling_rate
    places = np.floor(time).astype(int) % twelve.shape[1]
    columns = [LEADS.index(lead) if lead in LEADS else number % 12 for number, lead in enumerate(classifier.leads)]
    return twelve[:, places][:, :, columns].astype(np.float32)


def verify(classifier: Classifier, run: Run, ecgs: NDArray[np.float32]) -> dict[str, Any]:
    """Run a program in batches of `BATCHES` and compare it with the network; returns what was found, in JSON types.

    Raises:
        UserError: an output differs by more than `LIMIT`.
    """
    ours = run_network(classifier)(ecgs)
    largest = dict.fromkeys(ours, 0.0)
    for size in BATCHES:
        theirs = run(ecgs[:size])
        for name, values in ours.items():
            # A NaN is a difference, too.
            difference = np.abs(np.asarray(theirs[name], np.float64) - values[:size]).max()
            largest[name] = float(np.maximum(largest[name], difference))
    wrong = {name: value for name, value in largest.items() if not value <= LIMIT}
    if wrong:
        name, value = max(wrong.items(), key=lambda item: item[1])
        raise UserError(
            f"the exported program differs from the network by {value:.1e} in its {name}, more than {LIMIT:g}: "
            "nothing was written"
        )
    return {"records": len(ecgs), "batches": list(BATCHES), "largest_difference": largest}


def run_network(classifier: Classifier) -> Run:
    """A network itself."""

    def run(ecgs: NDArray[np.float32]) -> dict[str, NDArray]:
        attention = classifier.attend(ecgs, len(ecgs)) if len(output_names(classifier)) > 1 else {}
        return {"probabilities": classifier.predict_proba(ecgs, len(ecgs)), **attention}

    return run


def run_stablehlo(program: bytes, classifier: Classifier) -> Run:
    """The program as whoever reads the file runs it."""
    exported = jax.export.deserialize(bytearray(program))
    weights = by_name(classifier.variables)
    call = jax.jit(exported.call)
    return lambda ecgs: jax.device_get(call(weights, ecgs))


def run_onnx(model: bytes) -> Run:
    """The file in onnxruntime, on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--format onnx is checked with {error.name}: pip install 'imlenet_jax[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else its threads take time from others'
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ecgs: dict(zip(names, session.run(None, {INPUT: ecgs}), strict=True))
