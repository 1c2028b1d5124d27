"""IMLE-Net and the four networks it is compared with, in JAX and Flax.

import imlenet_jax
classifier = imlenet_jax.load("checkpoints/imle_net")
classifier.predict_proba(signals)        # signals: (n, time, leads) in mV
"""

from typing import TYPE_CHECKING, Any

from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.version import __version__

if TYPE_CHECKING:
    from imlenet_jax.classifier import Classifier, load
    from imlenet_jax.models import create_model

__all__ = ["Classifier", "DataWarning", "UserError", "__version__", "create_model", "load"]


def __getattr__(name: str) -> Any:
    """Import JAX, Flax and orbax only when they are used, so that data commands start at once."""
    if name in ("load", "Classifier"):
        from imlenet_jax import classifier

        return getattr(classifier, name)
    if name == "create_model":
        from imlenet_jax import models

        return models.create_model
    raise AttributeError(f"module 'imlenet_jax' has no attribute '{name}'")
