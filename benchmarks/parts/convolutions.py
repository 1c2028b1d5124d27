"""The convolutions of a step one by one: does each compile and run, and how long does it take?"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from imlenet_jax.models.platform import as_if_on


def convolutions(step: Callable[..., Any], *arguments: Any) -> dict[str, Callable[[], jax.Array]]:
    """Each different convolution of a step (in training also those of its gradients), as a call on zeros.

    Their names tell the shapes of signal and kernel, and where it applies strides and dilations.
    """
    with as_if_on(jax.export.default_export_platform()):  # of the programs by platform, the one that runs
        traced = jax.make_jaxpr(step)(*arguments)
    found = (e for e in equations(traced.jaxpr) if e.primitive.name == "conv_general_dilated")
    return {_name(equation): _call(equation) for equation in found}


def equations(jaxpr: Any) -> Iterator[Any]:
    """All of a program, whatever they are nested in."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def _name(equation: Any) -> str:
    signal, kernel = (variable.aval for variable in equation.invars)
    params, numbers = equation.params, equation.params["dimension_numbers"]
    name = f"{signal.str_short()} * {kernel.str_short()}, layout {numbers.lhs_spec}{numbers.rhs_spec}"
    per_axis = ("window_strides", "lhs_dilation", "rhs_dilation")
    changed = [f"{key} {params[key]}" for key in per_axis if set(params[key]) != {1}]
    groups = [f"{key} {params[key]}" for key in ("feature_group_count", "batch_group_count") if params[key] != 1]
    return ", ".join([name, f"padding {params['padding']}", *changed, *groups])


def _call(equation: Any) -> Callable[[], jax.Array]:
    compiled = jax.jit(lambda *arrays: equation.primitive.bind(*arrays, **equation.params))
    arrays = [jnp.zeros(variable.aval.shape, variable.aval.dtype) for variable in equation.invars]
    return lambda: compiled(*arrays)
