"""Faithfulness where the answer is known: linear networks, hand-made maps, tiny networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import spearmanr

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.classifier import Classifier
from imlenet_jax.errors import UserError
from imlenet_jax.explanation import faithfulness
from imlenet_jax.explanation.faithfulness import (
    area,
    cascade,
    curves,
    difference_interval,
    explain,
    mean_interval,
    part_scores,
    rank_correlation,
)
from imlenet_jax.explanation.saliency import baseline, class_logits, gradient_times_input
from imlenet_jax.models import abstract_variables, create_model, make_config
from tests.conftest import TINY

LEADS, LENGTH = 4, 30
WEIGHTS = np.random.default_rng(5).normal(size=(LENGTH, LEADS, 2)).astype(np.float32) / 5
LOGITS = Partial(lambda weights, x: jnp.einsum("ntl,tlc->nc", x, weights), WEIGHTS)
SIGNALS = np.random.default_rng(6).normal(size=(6, LENGTH, LEADS)).astype(np.float32)
TARGET = np.array([0, 1, 0, 1, 1, 0], np.int32)


def filled(network, value):
    return jax.tree.map(lambda array: np.full(array.shape, value, np.float32), abstract_variables(network))


def tiny_classifier(model, config, variables):
    leads = [f"L{i}" for i in range(config.leads)]
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(config).items()}
    meta = Meta(model, values, list("ABCDE"), leads, 100, {"mean": 0.0, "std": 1.0})
    return Classifier(meta, variables)


def test_curves_are_the_probabilities_of_records_without_the_first_parts():
    scores = np.random.default_rng(0).normal(size=(6, LEADS, 3))
    found = curves(LOGITS, SIGNALS, scores, TARGET, steps=6, batchsize=4)
    assert found.deletion.shape == found.insertion.shape == (6, 7)
    flat = np.broadcast_to(baseline(SIGNALS), SIGNALS.shape)
    for row, step in itertools.product(range(6), range(7)):
        parts = np.argsort(-scores[row].ravel())[: 2 * step]  # 12 parts in 6 steps
        deleted, inserted = SIGNALS[row].copy(), flat[row].copy()
        for part in parts:
            lead, window = divmod(part, 3)
            samples = slice(10 * window, 10 * window + 10)
            deleted[samples, lead] = flat[row, samples, lead]
            inserted[samples, lead] = SIGNALS[row, samples, lead]
        logits = class_logits(LOGITS, np.stack([deleted, inserted]))[:, TARGET[row]]
        expected = 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose([found.deletion[row, step], found.insertion[row, step]], expected, rtol=1e-4)


def test_the_true_map_of_a_linear_network_has_the_best_curves_of_all_orders():
    scores = part_scores(gradient_times_input(LOGITS, SIGNALS, TARGET), 1)
    best = curves(LOGITS, SIGNALS, scores, TARGET, steps=LEADS)
    for order in itertools.permutations(range(LEADS)):
        other = np.broadcast_to(np.array(order, float)[None, :, None], (6, LEADS, 1))
        found = curves(LOGITS, SIGNALS, other, TARGET, steps=LEADS)
        assert (best.deletion <= found.deletion + 1e-6).all() and (best.insertion >= found.insertion - 1e-6).all()
    worst = curves(LOGITS, SIGNALS, -scores, TARGET, steps=LEADS)
    assert (area(best.deletion) < area(worst.deletion)).all()
    np.testing.assert_allclose(best.deletion[:, ::-1], worst.insertion, rtol=1e-5)  # each is the other's mirror


def test_the_true_map_beats_random_ones_by_windows():
    scores = part_scores(gradient_times_input(LOGITS, SIGNALS, TARGET), 6)
    rng = np.random.default_rng(1)
    truth = area(curves(LOGITS, SIGNALS, scores, TARGET, steps=8).deletion)
    draws = [area(curves(LOGITS, SIGNALS, rng.random(scores.shape), TARGET, steps=8).deletion) for _ in range(3)]
    difference = mean_interval(truth - np.mean(draws, axis=0))
    assert difference["high"] < 0 and difference["n"] == 6


def test_area_and_part_scores():
    np.testing.assert_allclose(area([[1, 0, 0], [1, 1, 1], [1, 0.5, 0]]), [0.25, 1, 0.5])
    maps = np.arange(24.0).reshape(1, 2, 12)
    np.testing.assert_array_equal(part_scores(maps, 3)[0], [[6, 22, 38], [54, 70, 86]])
    with pytest.raises(ValueError, match="12 samples do not divide into 5 windows"):
        part_scores(maps, 5)


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 3, 4, 5)).round(1)
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    np.testing.assert_allclose(rank_correlation(a, np.exp(a)), 1)
    assert np.isnan(rank_correlation(a, np.ones_like(a))).all()


def test_intervals_of_means_and_differences():
    values = np.array([1.0, 2, 3, 4, 5, np.nan])
    found = mean_interval(values)
    assert found["value"] == 3 and found["n"] == 5 and 1 <= found["low"] < 2.5 and 3.5 < found["high"] <= 5
    assert mean_interval([7.0, 8.0]) == {"value": 7.5, "low": None, "high": None, "n": 2}  # too few for an interval
    assert mean_interval([np.nan])["value"] is None
    apart = difference_interval(values + 10, [0.0, 1, 2, 3, 4])
    assert apart["value"] == 11 and apart["n"] == 10 and 8 < apart["low"] < 10 < 12 < apart["high"] < 14
    assert difference_interval([1.0], values) == {"value": -2.0, "low": None, "high": None, "n": 6}


def test_the_cascade_redraws_from_the_head_on_and_ends_with_every_module(tiny, monkeypatch):
    model, config = tiny
    trained = filled(create_model(model, config), 1.0)
    classifier = tiny_classifier(model, config, trained)
    monkeypatch.setattr(faithfulness, "_drawn", lambda network, key: filled(network, 2.0))
    drawn = [set()]
    for _, changed in cascade(classifier, seed=1):
        leaves = jax.tree_util.tree_flatten_with_path(changed.variables)[0]
        new = {path[1].key for path, array in leaves if (array == 2).all()}
        assert new == {path[1].key for path, array in leaves if (array == 2).any()}
        drawn.append(new)
    assert "head" in drawn[1] and "stem" not in drawn[-2] and drawn[-1] == set(trained["params"])
    assert all(before < after for before, after in itertools.pairwise(drawn))
    assert classifier.variables is trained


def test_attention_does_not_see_the_head_and_gradients_do():
    config = make_config("imle_net", TINY["imle_net"])
    variables = faithfulness._drawn(create_model("imle_net", config), jax.random.key(0))
    classifier = tiny_classifier("imle_net", config, variables)
    x, target = np.random.default_rng(0).normal(0, 0.3, size=(3, 100, 12)).astype(np.float32), np.zeros(3, np.int32)
    levels = dict(cascade(classifier, seed=1))
    assert list(levels) == ["head", "channel", "rhythm", "beat", "the rest"]
    for method, unchanged in (("attention", True), ("gradient_x_input", False), ("integrated_gradients", False)):
        before, after = (
            part_scores(explain(method, each, x, target, steps=2), 2) for each in (classifier, levels["head"])
        )
        assert (rank_correlation(before, after) > 0.999).all() == unchanged
    np.testing.assert_array_equal(explain("amplitude", classifier, x, target), np.abs(x - baseline(x)).swapaxes(1, 2))
    with pytest.raises(UserError, match="there is no method 'lime'"):
        explain("lime", classifier, x, target)
