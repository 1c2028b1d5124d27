"""Which program a network runs: an operation can have one per platform, and a switch to try another's on a CPU."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

PORTABLE = "portable"
_taken = jax.make_user_context(os.environ.get("IMLENET_PLATFORM") or None)  # part of what JAX caches a program by


def as_if_on(platform: str | None) -> AbstractContextManager[None]:
    """Within it, networks are traced as for `cuda`, `tpu` or `cpu`, wherever they run; kernels are interpreted.

    As for `portable` they are made of common operations alone, for a program that is to run anywhere. It is how everything that an accelerator runs is tested without one. The environment variable IMLENET_PLATFORM does
    the same for a whole process.
    """
    return _taken(platform)


def platform_taken() -> str | None:
    """The platform that networks are traced for, where that is not simply the one that they are compiled for."""
    return _taken.value


def by_platform(*arguments: jax.Array, default: Callable[..., Any], **programs: Callable[..., Any]) -> Any:
    """What the program for the platform in use makes of `arguments`; `programs` are named as in `as_if_on`."""
    taken = platform_taken()
    if taken is not None:
        return programs.get(taken, default)(*arguments)
    programs.pop(PORTABLE, None)
    return lax.platform_dependent(*arguments, default=default, **programs)
