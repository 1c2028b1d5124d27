"""A trained network as a program that runs anywhere, made of common operations alone."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.export
import numpy as np

from imlenet_jax.checkpoints.exported import by_name, nested
from imlenet_jax.classifier import Classifier
from imlenet_jax.errors import UserError
from imlenet_jax.models.platform import PORTABLE, as_if_on

INPUT = "ecg_mv"
LEVELS = ("beat", "rhythm", "channel")
OPSET = 21  # of ONNX: onnxruntime 1.18 and newer
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def output_names(classifier: Classifier) -> tuple[str, ...]:
    """`probabilities`, and for imle_net the three levels of attention."""
    return ("probabilities", *(LEVELS if classifier.attends else ()))


def outputs(classifier: Classifier, variables: Any, ecg_mv: jax.Array) -> dict[str, jax.Array]:
    """What a program gives for ECGs (n, samples, leads) in mV, by name."""
    probabilities, aux = classifier.outputs(variables, ecg_mv)
    return {"probabilities": probabilities, **{name: aux[name] for name in output_names(classifier)[1:]}}


def stablehlo(classifier: Classifier) -> bytes:
    """The program of `jax.export`: of the weights by name and of ECGs, of any number, for each of `PLATFORMS`."""
    weights = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), by_name(classifier.variables))
    ecg = jax.ShapeDtypeStruct(
        (*jax.export.symbolic_shape("batch"), classifier.samples, len(classifier.leads)), np.float32
    )

    def program(weights: dict[str, jax.Array], ecg_mv: jax.Array) -> dict[str, jax.Array]:
        return outputs(classifier, nested(weights), ecg_mv)

    with as_if_on(PORTABLE):
        return bytes(jax.export.export(jax.jit(program), platforms=PLATFORMS)(weights, ecg).serialize())


def onnx(classifier: Classifier) -> Any:
    """An ONNX model (`onnx.ModelProto`): `ecg_mv` (batch, samples, leads) in, the outputs by name.

    Raises:
        UserError: the extra is not installed.
    """
    names = output_names(classifier)

    def program(ecg_mv: jax.Array) -> tuple[jax.Array, ...]:
        found = outputs(classifier, classifier.variables, ecg_mv)
        return tuple(found[name] for name in names)

    with _quiet(), as_if_on(PORTABLE):
        try:
            import jax2onnx
        except ImportError as error:
            raise UserError(f"--format onnx needs {error.name}: pip install 'imlenet_jax[onnx]'") from None
        shape = ("batch", classifier.samples, len(classifier.leads))
        return jax2onnx.to_onnx(
            program, [shape], model_name=classifier.meta.model, opset=OPSET, input_names=[INPUT], output_names=names
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what jax2onnx logs: each of its plugins that this jax is too new for, each shape it does not know."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
