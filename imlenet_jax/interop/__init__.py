"""Weights of the original keras and torch networks."""

from imlenet_jax.interop.weights import Imported, import_weights

__all__ = ["Imported", "import_weights"]
