"""How exact the multiplications of float32 are: `default` is what the device likes best, `highest` is float32 itself.

By default a GPU multiplies matrices in TF32 (10 bits of mantissa) and a TPU in bfloat16 (7 bits), each summed in float32.
A CPU has one way only, and both names mean it.
"""

import contextlib
from contextlib import AbstractContextManager

import jax

PRECISIONS = {"default": None, "highest": "highest"}


def set_precision(name: str) -> None:
    """Multiply so from now on, whatever JAX was told before.

    Raises:
        KeyError: `name` is neither `default` nor `highest`.
    """
    jax.config.update("jax_default_matmul_precision", PRECISIONS[name])


def precision(name: str) -> AbstractContextManager[object]:
    """Multiply so within this context, for what is traced in it; `default` leaves what JAX was told.

    Raises:
        KeyError: `name` is neither `default` nor `highest`.
    """
    level = PRECISIONS[name]
    return contextlib.nullcontext() if level is None else jax.default_matmul_precision(level)
