"""The vectorised bootstrap against one that scores each resample of records by itself."""

import numpy as np
import pytest

from imlenet_jax.evaluation import bootstrap as module
from imlenet_jax.evaluation import metrics
from imlenet_jax.evaluation.bootstrap import bootstrap, count_draws, draws, percentile_interval


def records(n=40, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random((n, classes)) < 0.4
    return labels, (labels + rng.normal(size=(n, classes))).round(1)


def test_equals_scoring_each_resample_by_itself(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 40 * 30)  # chunks of 30 resamples, the last one smaller
    labels, scores = records()

    def statistics(weights):
        return {
            "auc": metrics.class_auc(labels, scores, weights),
            "accuracy": metrics.mean_accuracy(labels, scores, 0.5, weights),
            "f1": metrics.max_f1(labels, scores, metrics.GRID_101, weights)[0],
        }

    samples = bootstrap(statistics, len(labels), resamples=100, seed=3)
    indices = np.concatenate(list(draws(len(labels), 100, seed=3)))
    assert indices.shape == (100, len(labels))
    for row, chosen in enumerate(indices):
        truth, values = labels[chosen], scores[chosen]
        np.testing.assert_allclose(samples["auc"][row], metrics.class_auc(truth, values), rtol=1e-12)
        np.testing.assert_allclose(samples["accuracy"][row], metrics.mean_accuracy(truth, values), rtol=1e-12)
        np.testing.assert_allclose(samples["f1"][row], metrics.max_f1(truth, values, metrics.GRID_101)[0], rtol=1e-12)


def test_counts_are_how_often_each_record_is_drawn():
    counts = count_draws(np.array([[0, 0, 2], [1, 2, 1]]))
    np.testing.assert_array_equal(counts, [[2, 0, 1], [0, 2, 1]])


def test_the_seed_decides_the_draws():
    def run(seed):
        return bootstrap(lambda weights: {"first": weights[:, 0]}, 20, 50, seed)["first"]

    np.testing.assert_array_equal(run(1), run(1))
    assert (run(1) != run(2)).any()


def test_interval_of_a_mean_is_that_of_normal_theory():
    values = np.random.default_rng(0).normal(size=400)
    samples = bootstrap(lambda weights: {"mean": weights @ values / len(values)}, len(values), 4000)["mean"]
    interval = percentile_interval(samples)
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    np.testing.assert_allclose(interval.low, values.mean() - half_width, atol=0.01)
    np.testing.assert_allclose(interval.high, values.mean() + half_width, atol=0.01)


def test_interval_leaves_out_what_does_not_exist():
    samples = np.stack([np.arange(101.0), np.r_[np.arange(100.0), np.nan], np.full(101, np.nan)], axis=1)
    interval = percentile_interval(samples)
    np.testing.assert_allclose(interval.low, [2.5, 0.025 * 99, np.nan])
    np.testing.assert_allclose(interval.high, [97.5, 0.975 * 99, np.nan])
    np.testing.assert_allclose(interval.left_out, [0, 1 / 101, 1])
    assert percentile_interval(samples[:, 0]).low.shape == ()
    np.testing.assert_allclose(percentile_interval(samples[:, 0], level=0.9).low, 5)


@pytest.mark.parametrize(("n", "resamples"), [(0, 10), (10, 0)])
def test_needs_records_and_resamples(n, resamples):
    with pytest.raises(ValueError, match="at least one record"):
        bootstrap(lambda weights: {}, n, resamples)
