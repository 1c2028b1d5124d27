"""IMLE-Net, the four networks it is compared with, xresnet1d101 and S4, in JAX and Flax.

import imlenet_jax
classifier = imlenet_jax.fit("mousavi", "synthetic", epochs=3)   # or load("checkpoints/mousavi")
classifier.predict_proba(signals)        # signals: (n, time, leads) in mV
"""

import importlib
from typing import TYPE_CHECKING, Any

from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.version import __version__

if TYPE_CHECKING:
    from imlenet_jax.classifier import Classifier, load
    from imlenet_jax.models import create_model
    from imlenet_jax.training.api import fit

__all__ = ["Classifier", "DataWarning", "UserError", "__version__", "create_model", "fit", "list_models", "load"]

_WHERE = {
    "Classifier": "imlenet_jax.classifier",
    "load": "imlenet_jax.classifier",
    "create_model": "imlenet_jax.models",
    "fit": "imlenet_jax.training.api",
}


def list_models() -> list[str]:
    """The names of the networks."""
    from imlenet_jax.models import MODELS

    return list(MODELS)


def __getattr__(name: str) -> Any:
    """Import JAX, Flax and orbax only when they are used, so that data commands start at once."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'imlenet_jax' has no attribute '{name}'")
