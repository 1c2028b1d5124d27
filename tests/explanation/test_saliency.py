"""Saliency where the answer is known: linear networks, completeness, one record at a time."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from imlenet_jax.explanation import saliency
from imlenet_jax.models import create_model
from tests.conftest import initial_variables

METHODS = (saliency.gradient_times_input, partial(saliency.integrated_gradients, steps=4))


def linear(weights, x):
    return jnp.einsum("ntl,tlc->nc", x, weights)


def records(n=5, length=40, leads=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, length, leads)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_network_is_explained_exactly(method):
    weights, x = records(4, 40, 3, seed=1).transpose(1, 2, 0), records()
    maps = method(Partial(linear, weights), x, target=2, batchsize=2)
    expected = (x - np.median(x, axis=1, keepdims=True)) * weights[:, :, 2]
    assert maps.shape == (5, 3, 40) and maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected.swapaxes(1, 2), atol=1e-5)


def test_the_most_probable_class_is_explained_unless_one_is_given():
    weights, x = records(4, 40, 3, seed=1).transpose(1, 2, 0), records()
    logits = Partial(linear, weights)
    likely = saliency.class_logits(logits, x, batchsize=2).argmax(axis=1)
    assert len(set(likely)) > 1
    np.testing.assert_array_equal(saliency.explained_class(logits, x, batchsize=2), likely)
    np.testing.assert_array_equal(
        saliency.gradient_times_input(logits, x), saliency.gradient_times_input(logits, x, likely)
    )
    assert not np.allclose(saliency.gradient_times_input(logits, x), saliency.gradient_times_input(logits, x, 0))
    for wrong in (4, -1, [0, 1, 2, 3, 4]):
        with pytest.raises(ValueError, match="numbered 0 to 3"):
            saliency.gradient_times_input(logits, x, wrong)


def test_integrated_gradients_of_a_square_and_not_the_gradient_are_complete():
    x = records()
    logits = Partial(lambda signals: jnp.square(signals).sum(axis=1))  # one class per lead
    flat = saliency.baseline(x)
    change = (np.square(x) - np.square(flat)).sum(axis=1)[:, 1]
    complete = saliency.integrated_gradients(logits, x, target=1, steps=3).sum(axis=(1, 2))
    np.testing.assert_allclose(complete, change, rtol=1e-4)  # the midpoint rule is exact for a linear gradient
    assert np.abs(saliency.gradient_times_input(logits, x, target=1).sum(axis=(1, 2)) - change).min() > 0.5


def test_each_network_is_explained_completely(tiny):
    model, config = tiny
    network = create_model(model, config)
    variables = initial_variables(network)
    x = records(3, config.length, config.leads)
    logits = Partial(lambda weights, signals: network.apply(weights, signals)[0], variables)
    ends = (saliency.class_logits(logits, a)[:, 1] for a in (x, np.broadcast_to(saliency.baseline(x), x.shape)))
    change = np.subtract(*ends)
    maps = saliency.integrated_gradients(logits, x, target=1, steps=256, batchsize=2)
    assert (np.abs(maps.sum(axis=(1, 2)) - change) < 1e-2 * np.abs(maps).sum(axis=(1, 2))).all()
    assert np.abs(maps).max() > 0


def test_batches_have_one_size_and_repeat_only_the_last_record():
    sizes = [(count, rows.tolist()) for count, rows in saliency.batches(3, np.arange(7))]
    assert sizes == [(3, [0, 1, 2]), (3, [3, 4, 5]), (1, [6, 6, 6])]
    assert [count for count, _ in saliency.batches(32, np.arange(2))] == [2]
