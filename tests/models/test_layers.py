"""Layers against their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.models.layers import LSTM, AttentionPooling, BatchNorm, Dropout, max_pool
from imlenet_jax.models.platform import as_if_on


def _draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("framework", "kept", "unbiased"), [("keras", 0.99, False), ("torch", 0.9, True)])
def test_batch_norm_running_statistics(framework, kept, unbiased):
    x = _draw((6, 5, 3)) * 2 + 1
    layer = BatchNorm(framework)
    variables = layer.init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)  # initialising is not a step
    y, changed = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    flat = x.reshape(-1, 3)
    np.testing.assert_allclose(changed["batch_stats"]["mean"], (1 - kept) * flat.mean(0), rtol=1e-5)
    expected = kept + (1 - kept) * flat.var(0, ddof=1 if unbiased else 0)
    np.testing.assert_allclose(changed["batch_stats"]["var"], expected, rtol=1e-5)
    epsilon = 1e-3 if framework == "keras" else 1e-5
    np.testing.assert_allclose(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + epsilon), rtol=1e-4, atol=1e-5)


def test_batch_norm_inference_uses_running_statistics():
    layer = BatchNorm("keras")
    variables = {
        "params": {"scale": jnp.full((2,), 3.0), "bias": jnp.full((2,), 0.5)},
        "batch_stats": {"mean": jnp.full((2,), 2.0), "var": jnp.full((2,), 4.0)},
    }
    y = layer.apply(variables, jnp.full((1, 1, 2), 6.0), train=False)
    np.testing.assert_allclose(y, (6 - 2) / np.sqrt(4 + 1e-3) * 3 + 0.5, rtol=1e-6)


def test_batch_norm_over_pmap_is_that_of_the_global_batch():
    x = _draw((8, 4, 3))
    layer = BatchNorm("torch")
    variables = layer.init(jax.random.key(0), x, train=True)
    whole, changed = layer.apply(variables, x, train=True, mutable=["batch_stats"])

    def on_device(part):
        return BatchNorm("torch", axis_name="data").apply(variables, part, train=True, mutable=["batch_stats"])

    parts, statistics = jax.pmap(on_device, axis_name="data")(x.reshape(4, 2, 4, 3))
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["batch_stats"]["var"][0], changed["batch_stats"]["var"], rtol=1e-5)


def test_attention_is_softmax_of_the_scores():
    x = _draw((2, 5, 3))
    layer = AttentionPooling(4)
    variables = layer.init(jax.random.key(0), x)
    p = {name: np.asarray(value) for name, value in variables["params"].items()}
    p["bias"] = _draw((5, 4), 1)  # one row per position
    context, weights = layer.apply({"params": p}, x)
    energy = (np.tanh(x @ p["weight"] + p["bias"]) @ p["score"])[..., 0]
    expected = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_allclose(context, (x * expected[..., None]).sum(1), rtol=1e-4, atol=1e-6)


def _lstm_by_hand(x, kernel, recurrent, bias):
    units = recurrent.shape[0]
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    hidden = cell = np.zeros((len(x), units))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + hidden @ recurrent + bias, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, 1)


@pytest.mark.parametrize("unroll", [1, 6])
def test_bidirectional_lstm(unroll):
    x = _draw((2, 6, 3))
    layer = LSTM(4, "keras", bidirectional=True, unroll=unroll)
    variables = layer.init(jax.random.key(1), x)
    p = variables["params"]
    np.testing.assert_array_equal(p["forward_bias"], np.repeat([0, 1, 0, 0], 4))  # keras' forget bias
    np.testing.assert_allclose(p["backward_recurrent"] @ p["backward_recurrent"].T, np.eye(4), atol=1e-5)
    forward = _lstm_by_hand(x, p["forward_kernel"], p["forward_recurrent"], p["forward_bias"])
    backward = _lstm_by_hand(x[:, ::-1], p["backward_kernel"], p["backward_recurrent"], p["backward_bias"])[:, ::-1]
    np.testing.assert_allclose(layer.apply(variables, x), np.concatenate([forward, backward], -1), rtol=1e-4, atol=1e-6)


def test_torch_lstm_adds_two_trained_biases():
    x = _draw((2, 6, 3))
    layer = LSTM(4, "torch")
    variables = layer.init(jax.random.key(1), x)
    p = variables["params"]
    assert all(np.abs(array).max() <= 0.5 for array in p.values())  # U(+-1 / sqrt(4))
    bias = p["forward_bias"] + p["forward_recurrent_bias"]
    expected = _lstm_by_hand(x, p["forward_kernel"], p["forward_recurrent"], bias)
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-6)


def test_max_pool_pads_with_minus_infinity():
    x = -jnp.arange(1.0, 6.0).reshape(1, 5, 1)
    np.testing.assert_array_equal(max_pool(x, 2, "SAME").ravel(), [-1, -3, -5])
    np.testing.assert_array_equal(max_pool(x, 2).ravel(), [-1, -3])
    np.testing.assert_array_equal(max_pool(x, 3, (1, 1), stride=2).ravel(), [-1, -2, -4])


@pytest.mark.parametrize(("size", "padding"), [(2, "VALID"), (2, "SAME"), (3, "SAME"), (3, "VALID")])
@pytest.mark.parametrize("positions", [11, 12])
@pytest.mark.parametrize(("platform", "summed"), [(None, False), ("tpu", False), ("tpu", True)])
def test_max_pool_and_its_gradient_are_those_of_xla(size, padding, positions, platform, summed):
    x = np.round(2 * _draw((4, positions, 3)))  # with ties, of which the first has the gradient

    def squared(pool):
        return lambda x: jnp.sum(jnp.square(pool(x)) * jnp.arange(1, 4))

    ours = squared(lambda x: max_pool(x, size, padding, summed=summed))
    xla = squared(lambda x: nn.max_pool(x, (size,), strides=(size,), padding=padding))
    with as_if_on(platform):
        found = jax.value_and_grad(ours)(x)
    expected = jax.value_and_grad(xla)(x)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])


def test_dropout_zeros_each_value_by_itself_at_its_rate():
    x = jnp.ones((64, 50, 7))
    y = np.asarray(Dropout(0.2).apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    np.testing.assert_allclose(np.unique(y), [0, 1.25])
    dropped = y == 0
    assert abs(dropped.mean() - 0.2) < 0.01
    flat = dropped.reshape(-1, 7).astype(float)
    pairs = np.corrcoef(np.concatenate([flat[:-1], flat[1:]], axis=1).T)  # with neighbours in features and positions
    assert np.abs(pairs - np.eye(14)).max() < 0.06
    np.testing.assert_array_equal(Dropout(0.2).apply({}, x, False), x)
