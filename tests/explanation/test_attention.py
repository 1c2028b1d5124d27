"""The combined map keeps the mass of every window and puts positions where the network's strides put them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.classifier import Classifier
from imlenet_jax.errors import UserError
from imlenet_jax.explanation.attention import Attention, attention_maps, centres, combine, on_samples
from imlenet_jax.models import create_model, make_config
from tests.conftest import TINY, initial_variables

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def levels(n: int = 3, positions: int = 13, seed: int = 0):
    draw = np.random.default_rng(seed)
    weights = [draw.random((n, 12, 20, positions)) ** 4, draw.random((n, 12, 20)), draw.random((n, 12))]
    return [level / level.sum(axis=-1, keepdims=True) for level in weights]


def classifier(model: str) -> Classifier:
    config = make_config(model, TINY[model])
    variables = initial_variables(create_model(model, config))
    meta = Meta(model, TINY[model], ["CD", "HYP", "MI", "NORM", "STTC"], LEADS, 100, {"mean": 0.0, "std": 0.2})
    return Classifier(meta, variables)


def test_every_window_holds_the_product_of_its_levels():
    beat, rhythm, channel = levels()
    combined = combine(beat, rhythm, channel, 1000)
    assert combined.shape == (3, 12, 1000) and combined.dtype == np.float64
    np.testing.assert_allclose(combined.sum(axis=(1, 2)), 1, rtol=0, atol=1e-12)
    windows = combined.reshape(3, 12, 20, 50).sum(axis=-1)
    np.testing.assert_allclose(windows, channel[:, :, None] * rhythm, rtol=1e-12)
    assert (combined > 0).all()


def test_float32_levels_of_the_network_lose_no_mass():
    combined = combine(*[level.astype(np.float32) for level in levels()], 1000)
    np.testing.assert_allclose(combined.sum(axis=(1, 2)), 1, rtol=0, atol=1e-12)


def test_even_attention_gives_an_even_map():
    combined = combine(np.full((1, 12, 20, 13), 1 / 13), np.full((1, 12, 20), 1 / 20), np.full((1, 12), 1 / 12), 1000)
    np.testing.assert_allclose(combined, 1 / 12000, rtol=1e-12)


def test_a_single_position_is_a_tent_around_its_centre():
    samples = on_samples(np.eye(13)[3], 50)
    assert centres(13, 50)[3] == 13.5
    expected = np.maximum(0, 1 - np.abs(np.arange(50) - 13.5) / 4)
    np.testing.assert_allclose(samples, expected / expected.sum(), atol=1e-15)
    ends = on_samples(np.eye(13)[[0, 12]], 50)
    assert np.flatnonzero(ends[0]).tolist() == [0, 1, 2, 3, 4, 5] and ends[0, 0] == ends[0, 1] == ends[0].max()
    assert np.flatnonzero(ends[1]).tolist() == [46, 47, 48, 49] and ends[1].argmax() == 49


@pytest.mark.parametrize(("strided", "length", "positions"), [(0, 50, 50), (1, 50, 25), (2, 50, 13), (3, 100, 13)])
def test_centres_are_those_of_the_strided_convolutions(strided, length, positions):
    """What a chain of 8-tap convolutions of ones reads around each position has its centre there."""

    class Chain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(strided):
                x = nn.Conv(1, (8,), strides=(2,), padding="SAME", kernel_init=nn.initializers.ones)(x)
            return x

    chain, window = Chain(), jnp.zeros((1, length, 1))
    variables = chain.init(jax.random.key(0), window)
    reads = np.asarray(jax.jacobian(lambda x: chain.apply(variables, x)[0, :, 0])(window))[:, 0, :, 0]
    assert reads.shape == (positions, length)
    inner = [row for row in range(positions) if not strided or reads[row, 0] == reads[row, -1] == 0]
    assert inner
    for position in inner:
        middle = (reads[position] * np.arange(length)).sum() / reads[position].sum()
        assert middle == pytest.approx(centres(positions, length)[position])


def test_lengths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        combine(*levels(1), 1001)


def test_maps_of_a_network():
    network, signals = (
        classifier("imle_net"),
        np.random.default_rng(0).normal(0, 0.3, size=(5, 100, 12)).astype(np.float32),
    )
    maps = attention_maps(network, signals, batchsize=2)
    assert [level.shape for level in maps] == [(5, 12, 2, 25), (5, 12, 2), (5, 12), (5, 12, 100)]
    np.testing.assert_allclose(maps.channel, network.attend(signals)["channel"], rtol=1e-5)
    np.testing.assert_allclose(maps.combined.sum(axis=(1, 2)), 1, rtol=0, atol=1e-12)
    alone = maps.record(3)
    assert isinstance(alone, Attention)
    np.testing.assert_array_equal(alone.combined, maps.combined[3])


def test_networks_without_attention_are_refused():
    with pytest.raises(UserError, match="mousavi has no attention"):
        attention_maps(classifier("mousavi"), np.zeros((1, 100, 12)))
