"""From a trained network to the bytes of a file: programs and weights, what was checked, and what goes with them."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.checkpoints.card import card
from imlenet_jax.checkpoints.exported import FORMAT, VERSION, pack_safetensors, pack_stablehlo, parse_exported
from imlenet_jax.checkpoints.reading import checksum
from imlenet_jax.classifier import Classifier
from imlenet_jax.export.program import INPUT, onnx, output_names, stablehlo
from imlenet_jax.export.verify import run_network, run_onnx, run_stablehlo, verify

Ecgs = NDArray[np.float32]
File = tuple[bytes, dict[str, Any]]


def describe(classifier: Classifier, tests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What goes with a network, in JSON types; `tests` as for `card`."""
    meta = dataclasses.replace(classifier.meta, history=[], checksums={"variables": checksum(classifier.variables)})
    return {
        "format": FORMAT,
        "version": VERSION,
        "input": {
            "name": INPUT,
            "shape": ["batch", classifier.samples, len(classifier.leads)],
            "unit": "mV, not standardised",
            "leads": list(meta.leads),
            "sampling_rate": meta.sampling_rate,
        },
        "outputs": list(output_names(classifier)),
        "classes": list(meta.classes),
        "thresholds": meta.thresholds,
        "temperature": tests.get("logs", {}).get("temperature"),
        "sets": tests.get("sets", {}).get("sets"),
        "card": card(classifier.meta, tests),
        "meta": dataclasses.asdict(meta),
    }


def to_onnx(classifier: Classifier, about: dict[str, Any], ecgs: Ecgs) -> File:
    """An ONNX file, run in onnxruntime. Its metadata hold `about` as JSON, and the card is its text."""
    model = onnx(classifier)
    checked = verify(classifier, run_onnx(model.SerializeToString()), ecgs)
    model.doc_string = about["card"]
    entry = model.metadata_props.add()
    entry.key, entry.value = "imlenet_jax", json.dumps(about | {"checked": checked}, allow_nan=False)
    return model.SerializeToString(), checked


def to_stablehlo(classifier: Classifier, about: dict[str, Any], ecgs: Ecgs) -> File:
    """A `.stablehlo` file, whose program and weights were read back and run."""
    program = stablehlo(classifier)
    checked = verify(classifier, run_stablehlo(program, classifier), ecgs)
    content = pack_stablehlo(about | {"checked": checked}, classifier.variables, program)
    parse_exported(content)
    return content, checked


def to_safetensors(classifier: Classifier, about: dict[str, Any], ecgs: Ecgs) -> File:
    """A safetensors file, whose weights were read back into a network of their own and run."""
    found = parse_exported(pack_safetensors(about, classifier.variables))
    checked = verify(classifier, run_network(Classifier(found.meta, found.variables, classifier.precision)), ecgs)
    return pack_safetensors(about | {"checked": checked}, classifier.variables), checked


FORMATS: dict[str, Callable[[Classifier, dict[str, Any], Ecgs], File]] = {
    "onnx": to_onnx,
    "stablehlo": to_stablehlo,
    "safetensors": to_safetensors,
}
