"""Optimizers against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imlenet_jax.errors import UserError
from imlenet_jax.training.optimizers import clip_each_by_norm, courses, make_optimizer, norms_of


@pytest.mark.parametrize(("model", "clipped"), [("imle_net", False), ("rajpurkar", True), ("ecgnet", False)])
def test_adam_as_each_framework_writes_it(model, clipped):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 3)) * [1e-6, 1.0, 30.0]
    optimizer = make_optimizer(model, 0.01)
    params = jnp.zeros(3)
    state = optimizer.init(params)
    expected, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(gradients, 1):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        g = gradient / max(1, np.linalg.norm(gradient)) if clipped else gradient
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        epsilon = 1e-8 if model == "ecgnet" else 1e-7 / np.sqrt(1 - 0.999**t)
        expected -= 0.01 * m_hat / (np.sqrt(v_hat) + epsilon)
    np.testing.assert_allclose(params, expected, rtol=1e-3)


@pytest.mark.parametrize(("model", "given", "decay"), [("s4", None, 1e-3), ("imle_net", 0.2, 0.2), ("s4", 0.0, 0.0)])
def test_weight_decay_is_taken_off_the_weights_themselves(model, given, decay):
    params, gradient = jnp.array([1.0, -2.0, 3.0]), jnp.array([1e-3, 1.0, -5.0])
    updates = []
    for optimizer in (make_optimizer(model, 0.1, weight_decay=given), make_optimizer(model, 0.1, weight_decay=0.0)):
        updates.append(optimizer.update(gradient, optimizer.init(params), params)[0])
    np.testing.assert_allclose(updates[0] - updates[1], -0.1 * decay * params, atol=1e-7)


def test_one_cycle_rises_and_falls_as_fastai_has_it():
    assert courses("constant", 0.01, 100) == (0.01, None)
    with pytest.raises(UserError, match="schedule is 'cosine': choose one of constant, onecycle"):
        courses("cosine", 0.01, 100)
    rate, b1 = courses("onecycle", 0.01, 100)
    steps = (0, 15, 30, 65, 100)
    np.testing.assert_allclose([rate(step) for step in steps], [4e-4, 5.2e-3, 1e-2, 5e-3, 4e-8], rtol=1e-4)
    np.testing.assert_allclose([b1(step) for step in steps], [0.95, 0.9, 0.85, 0.9, 0.95], rtol=1e-6)


@pytest.mark.parametrize("model", ["imle_net", "xresnet1d101"])
def test_adam_takes_the_b1_of_its_step(model):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 3))
    rate, b1 = courses("onecycle", 0.01, len(gradients))
    optimizer = make_optimizer(model, rate, weight_decay=0.0, b1=b1)
    constant = make_optimizer(model, rate, weight_decay=0.0)
    params, b2 = jnp.zeros(3), {"imle_net": 0.999, "xresnet1d101": 0.99}[model]
    state = optimizer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(constant.init(params))
    expected, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, 1):
        updates, state = optimizer.update(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
        b = float(b1(t - 1))
        m, v = b * m + (1 - b) * g, b2 * v + (1 - b2) * g**2
        epsilon = 1e-8 if model == "xresnet1d101" else 1e-7 / np.sqrt(1 - b2**t)
        expected -= float(rate(t - 1)) * m / (1 - b**t) / (np.sqrt(v / (1 - b2**t)) + epsilon)
    np.testing.assert_allclose(params, expected, rtol=1e-4)


def test_rajpurkar_is_not_clipped_for_the_sub_diagnosis():
    gradient, params = {"w": jnp.array([30.0, 40.0])}, {"w": jnp.zeros(2)}
    moments = []
    for exclusive in (False, True):
        optimizer = make_optimizer("rajpurkar", exclusive=exclusive)
        state = optimizer.update(gradient, optimizer.init(params), params)[1]
        moments.append(max(float(jnp.max(leaf)) for leaf in jax.tree.leaves(state)))
    np.testing.assert_allclose(moments, [1, 4], rtol=1e-5)  # the step's count; (1 - b1) 40


def test_each_array_is_clipped_by_itself():
    clip = clip_each_by_norm(1.0)
    gradient = {"large": jnp.array([3.0, 4.0]), "small": jnp.array([0.3, 0.4]), "zero": jnp.zeros(2)}
    clipped, _ = clip.update(gradient, clip.init(gradient))
    np.testing.assert_allclose(clipped["large"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(clipped["small"], [0.3, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(clipped["zero"], 0)


def test_norms_are_those_of_numpy_in_their_order():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3,), (4, 5, 3), (7,), (2, 3), (3,), (1, 1, 7)]]
    np.testing.assert_allclose(norms_of(arrays), [np.linalg.norm(array) for array in arrays], rtol=1e-6)
