"""Records longer than the network: windows, their mean, and random crops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.models import create_model, make_config, windows
from tests.conftest import TINY, initial_variables


@pytest.mark.parametrize(
    ("samples", "length", "expected"),
    [
        (1000, 250, [0, 125, 250, 375, 500, 625, 750]),
        (1000, 999, [0, 1]),
        (1000, 300, [0, 150, 300, 450, 600, 700]),
        (1000, 1000, [0]),
        (3, 1, [0, 1, 2]),
    ],
)
def test_windows_are_half_of_one_apart_and_end_with_the_record(samples, length, expected):
    assert windows.starts(samples, length) == expected


@pytest.mark.parametrize("exclusive", [False, True])
def test_logits_of_a_longer_record_are_those_of_the_mean_probability(exclusive):
    network = create_model("s4", make_config("s4", TINY["s4"]))
    variables = initial_variables(network)
    x = np.random.default_rng(0).normal(size=(2, 160, 12)).astype(np.float32)
    squash = partial(jax.nn.softmax, axis=-1) if exclusive else jax.nn.sigmoid
    each = [squash(network.apply(variables, x[:, start : start + 64])[0]) for start in (0, 32, 64, 96)]
    logits, aux = windows.apply(network, variables, x, exclusive)
    assert aux == {}
    np.testing.assert_allclose(squash(logits), np.mean(each, axis=0), atol=1e-6)
    one, _ = windows.apply(network, variables, x[:, :64], exclusive)
    np.testing.assert_array_equal(one, network.apply(variables, x[:, :64])[0])


def test_a_certain_answer_stays_finite():
    class Sure:
        config = make_config("s4", TINY["s4"])

        @staticmethod
        def apply(variables, x, train):
            return jnp.full((len(x), 5), 200.0), {}

    logits, _ = windows.apply(Sure, {}, jnp.zeros((1, 128, 12)))
    np.testing.assert_allclose(logits, 200)


def test_crops_are_pieces_of_their_records_from_anywhere_in_them():
    signal = np.arange(4000, dtype=np.int16)[:, None] + np.zeros((1, 2), np.int16)
    signal = signal.reshape(400, 10, 2)
    found = windows.crop(jnp.asarray(signal), 4, jax.random.key(3))
    assert found.shape == (400, 4, 2) and found.dtype == jnp.int16
    first = np.asarray(found)[:, 0, 0] - signal[:, 0, 0]
    np.testing.assert_array_equal(found[:, :, 1] - found[:, :1, 1], np.tile(np.arange(4), (400, 1)))
    counts = np.bincount(first, minlength=7)
    assert len(counts) == 7 and counts.min() > 30  # 57 expected, std 7
