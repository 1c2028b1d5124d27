"""An explanation as one HTML file that needs no network: zoom, pan, and every weight under the pointer."""

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.explanation.attention import LIMITS, Attention, centres, on_samples
from imlenet_jax.explanation.explain import COLOURS, GRADIENTS, PURPOSE, Explanation
from imlenet_jax.files import write_atomically


def write_page(explanation: Explanation, path: Path) -> None:
    """Write the page, such as `<record>/channel_visualization.html`. Without attention it shows signal and prediction.

    Raises:
        OSError: the folder cannot be written.
    """
    template = files(__package__).joinpath("page.html").read_text("utf-8")
    title = html.escape(f"{explanation.name} - {explanation.verdict}")
    # Data first: the title stands before it, so that neither can be taken for the other's place.
    page = template.replace("{{data}}", json_for_script(_data(explanation)), 1).replace("{{title}}", title, 1)
    write_atomically(Path(path), page.encode("utf-8", "replace"))


def json_for_script(value: Any) -> str:
    """JSON that may stand in a `<script>`: no character of it can end the element, whatever a record is called."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _data(explanation: Explanation) -> dict[str, Any]:
    return {
        "name": explanation.name,
        "verdict": explanation.verdict,
        "sets": explanation.sets and {"coverage": explanation.sets.coverage, "possible": explanation.not_ruled_out},
        "purpose": PURPOSE,
        "notes": list(explanation.notes),
        "rate": explanation.sampling_rate,
        "leads": list(explanation.leads),
        "signal": _rounded(np.transpose(explanation.signal_mv), 6),
        "classes": [
            {"name": name, "probability": float(value), "threshold": limit, "predicted": yes}
            for name, value, limit, yes in zip(
                explanation.classes,
                explanation.probabilities,
                explanation.thresholds,
                explanation.predicted,
                strict=True,
            )
        ],
        "colours": list(COLOURS),
        "gradients": {
            "limits": GRADIENTS,
            "classes": {name: _rounded(gradient, 3) for name, gradient in explanation.gradients.items()},
        }
        if explanation.gradients
        else None,
        "attention": _weights(explanation.attention) if explanation.attention else None,
    }


def _weights(attention: Attention) -> dict[str, Any]:
    """The levels; `samples` is the beat level on samples, from which the page multiplies the combined map."""
    _, windows, positions = attention.beat.shape
    window = attention.combined.shape[-1] // windows
    return {
        "limits": LIMITS,
        "beat": _rounded(attention.beat, 6),
        "rhythm": _rounded(attention.rhythm, 6),
        "channel": _rounded(attention.channel, 6),
        "samples": _rounded(on_samples(attention.beat, window).reshape(len(attention.channel), -1), 6),
        "centres": centres(positions, window).tolist(),
        "window": window,
    }


def _rounded(values: NDArray, digits: int) -> Any:
    """Nested lists of numbers to so many significant digits, those that float32 has: a third of the size."""
    values = np.asarray(values, np.float64)
    return np.array([float(f"{v:.{digits}g}") for v in values.ravel()]).reshape(values.shape).tolist()
