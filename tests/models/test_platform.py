"""What an accelerator runs, run on a CPU: networks traced for one give what they give on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.models import create_model, make_config
from imlenet_jax.models.platform import as_if_on, by_platform
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.step import new_state, update
from tests.conftest import TINY, initial_variables

RECORDS, STEPS = 8, 3


def _trained(name, config, platform):
    """Logits, gradients (of the first step, by Adam's first moment), losses of a few steps, and logits after them."""
    network, optimizer = create_model(name, config), make_optimizer(name)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(RECORDS, config.length, config.leads)))
    label = jnp.asarray(rng.random((RECORDS, config.classes)) < 0.3, x.dtype)
    variables = jax.tree.map(lambda array: array.astype(x.dtype), initial_variables(network))
    state, losses = new_state(variables, optimizer), []

    @jax.jit
    def step(state):
        return update(network, optimizer, state, x, label, jax.random.key(1))

    @jax.jit
    def predict(variables):
        return network.apply(variables, x)[0]

    with as_if_on(platform):
        before = predict(state.variables)
        for _ in range(STEPS):
            state, outcome = step(state)
            losses.append(outcome.loss)
        return before, outcome.logits, jnp.stack(losses), predict(state.variables), state.batch_stats


# xresnet1d101 is made of resnet101's layers; test_s4.py has the two programs of s4's convolution.
NAMES = [name for name in TINY if name not in ("xresnet1d101", "s4")]


@pytest.mark.parametrize("name, double", [*((name, True) for name in NAMES), ("imle_net", False)])
def test_training_is_that_of_the_cpu(name, double):
    config = make_config(name, TINY[name])
    with jax.enable_x64(double):
        wanted, found = (_trained(name, config, platform) for platform in ("cpu", "cuda"))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        # Adam's first steps turn rounding of tiny gradients into whole steps: float64 tells whether all is right.
        scale = np.max(np.abs(b))
        np.testing.assert_allclose(a, b, atol=(1e-7 if double else 2e-2) * scale)


def test_the_switch_is_part_of_what_is_cached():
    @jax.jit
    def number(x):
        return by_platform(x, cuda=lambda x: x + 1, cpu=lambda x: x + 2, default=lambda x: x + 3)

    assert number(0.0) == 2
    for platform, expected in (("cuda", 1), ("tpu", 3), ("cpu", 2)):
        with as_if_on(platform):
            assert number(0.0) == expected
    assert number(0.0) == 2
