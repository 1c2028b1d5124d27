"""Metrics against scikit-learn, hand-computed examples and slow implementations of the definitions."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, roc_auc_score

from imlenet_jax.errors import DataWarning
from imlenet_jax.evaluation import metrics

# Few distinct scores, so that ties between and within classes are common; some lie exactly on thresholds.
SCORES = st.sampled_from([0.0, 0.1, 1 / 9, 0.3, 0.5, 0.51, 0.9, 1.0])


@st.composite
def cases(draw, classes=3):
    """Labels (n, C), scores (n, C) and counts (n,)."""
    shape = (draw(st.integers(1, 25)), classes)
    labels = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    scores = draw(hnp.arrays(np.float64, shape, elements=SCORES))
    return labels, scores, draw(hnp.arrays(np.int64, shape[:1], elements=st.integers(0, 3)))


def auc_by_pairs(positive, scores):
    """Share of (positive, negative) pairs in the right order, a tie counting one half."""
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive == 1] for b in scores[positive == 0]]
    return np.mean(pairs) if pairs else np.nan


def sample_f1_by_loop(labels, scores, thresholds):
    """Sample-centric F1 at one threshold per class, record by record."""
    precisions, recalls = [], []
    for truth, row in zip(labels, scores, strict=True):
        predicted = row >= thresholds
        hits = sum(predicted & (truth == 1))
        if predicted.any():
            precisions.append(hits / predicted.sum())
        if truth.any():
            recalls.append(hits / truth.sum())
    if not precisions or not recalls:
        return np.nan
    precision, recall = np.mean(precisions), np.mean(recalls)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_grids_have_the_published_thresholds():
    np.testing.assert_allclose(metrics.GRID_10, np.linspace(0, 1, 10))
    np.testing.assert_allclose(metrics.GRID_101, np.linspace(0, 1, 101))


@settings(max_examples=60)
@given(cases())
def test_auc_is_the_share_of_ordered_pairs_and_what_scikit_learn_gives(case):
    labels, scores, _ = case
    auc = metrics.class_auc(labels, scores)
    for c in range(labels.shape[1]):
        np.testing.assert_allclose(auc[c], auc_by_pairs(labels[:, c], scores[:, c]), rtol=1e-12)
        if 0 < labels[:, c].sum() < len(labels):
            np.testing.assert_allclose(auc[c], roc_auc_score(labels[:, c], scores[:, c]), rtol=1e-12)


def test_macro_auc_is_what_scikit_learn_gives_for_float32_without_and_with_ties():
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 5)) < 0.3).astype(np.uint8)
    scores = (rng.normal(size=(500, 5)) + labels).astype(np.float32)
    for values in (scores, scores.round(1)):
        expected = roc_auc_score(labels, values, average="macro")
        np.testing.assert_allclose(metrics.macro_auc(labels, values), expected, rtol=1e-12)
        np.testing.assert_allclose(metrics.macro_auc_present(labels, values), expected, rtol=1e-12)


def test_auc_depends_on_the_order_of_scores_only_even_at_infinity():
    labels = np.array([[0], [1], [0], [1]])
    assert metrics.class_auc(labels, [[-np.inf], [np.inf], [0], [np.inf]]) == [1.0]
    assert metrics.class_auc(labels, [[np.inf], [np.inf], [np.inf], [np.inf]]) == [0.5]


def test_a_class_that_none_or_all_have_has_no_auc():
    labels = np.array([[0, 1, 1], [0, 1, 0], [0, 1, 1]])
    scores = np.array([[0.1, 0.2, 0.9], [0.5, 0.5, 0.3], [0.3, 0.3, 0.2]])
    np.testing.assert_array_equal(metrics.class_auc(labels, scores), [np.nan, np.nan, 0.5])
    assert np.isnan(metrics.macro_auc(labels, scores))
    assert metrics.macro_auc_present(labels, scores) == 0.5
    assert np.isnan(metrics.macro_auc_present(labels[:, :2], scores[:, :2]))


def test_a_network_that_diverged_has_no_macro_auc():
    labels, scores = np.array([[0, 1], [1, 0]]), np.array([[0.1, 0.9], [0.8, np.nan]])
    np.testing.assert_array_equal(metrics.class_auc(labels, scores), [1.0, np.nan])
    assert np.isnan(metrics.macro_auc_present(labels, scores))


def test_accuracy_by_hand():
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    scores = np.array([[0.5, 0.5], [0.4, 0.1], [0.49, 0.9], [0.7, 0.6]])
    np.testing.assert_array_equal(metrics.class_accuracy(labels, scores), [0.5, 0.75])  # 0.5 is a prediction
    assert metrics.mean_accuracy(labels, scores) == 0.625
    assert metrics.mean_accuracy(labels, scores, threshold=0.6) == 0.625


def test_precision_and_recall_by_hand():
    labels = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0]])
    scores = np.array([[0.9, 0.2, 0.8], [0.1, 0.1, 0.1], [0.7, 0.1, 0.1]])
    precision, recall = metrics.sample_precision_recall(labels, scores, [0.0, 0.5, 0.95])
    # At 0.5 the second record has no prediction: no precision, recall 0. At 0.95 none has.
    np.testing.assert_allclose(precision, [(2 / 3 + 1 / 3 + 1 / 3) / 3, (1 / 2 + 1) / 2, np.nan])
    np.testing.assert_allclose(recall, [1, (1 / 2 + 0 + 1) / 3, 0])


def test_a_record_without_a_class_is_left_out_of_recall():
    labels, scores = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.1], [0.9, 0.1]])
    precision, recall = metrics.sample_precision_recall(labels, scores, [0.5])
    assert (precision, recall) == (0.5, 1.0)


def test_max_f1_by_hand():
    labels, scores = np.array([[1, 0], [0, 1]]), np.array([[0.8, 0.3], [0.3, 0.7]])
    value, threshold = metrics.max_f1(labels, scores, metrics.GRID_10)
    assert (value, threshold) == (1.0, pytest.approx(3 / 9))  # the lowest grid point above 0.3
    value, threshold = metrics.max_f1(labels, scores, metrics.GRID_101)
    assert (value, threshold) == (1.0, pytest.approx(0.31))


def test_max_f1_is_zero_when_all_predictions_are_wrong_and_nan_without_any():
    labels = np.array([[1, 0], [1, 0]])
    assert metrics.max_f1(labels, [[-5.0, 0.5], [-5.0, 0.1]])[0] == 0.0
    np.testing.assert_array_equal(metrics.max_f1(labels, np.full((2, 2), -1.0)), (np.nan, np.nan))


@settings(max_examples=60)
@given(cases())
def test_sample_f1_is_that_of_the_definition(case):
    labels, scores, _ = case
    expected = np.array([sample_f1_by_loop(labels, scores, limit) for limit in metrics.GRID_10])
    value, threshold = metrics.max_f1(labels, scores, metrics.GRID_10)
    if np.isnan(expected).all():
        assert np.isnan(value) and np.isnan(threshold)
    else:
        np.testing.assert_allclose(value, np.nanmax(expected), rtol=1e-12)
        np.testing.assert_allclose(sample_f1_by_loop(labels, scores, threshold), value, rtol=1e-12)
    limits = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(
        metrics.sample_f1_at(labels, scores, limits), sample_f1_by_loop(labels, scores, limits), rtol=1e-12
    )


@settings(max_examples=60)
@given(cases())
def test_class_f1_is_what_scikit_learn_gives(case):
    labels, scores, _ = case
    limits = np.array([0.1, 0.5, 0.9])
    expected = f1_score(labels, scores >= limits, average=None, zero_division=0)
    expected = np.where(labels.any(axis=0), expected, np.nan)
    np.testing.assert_allclose(metrics.class_f1_at(labels, scores, limits), expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.macro_f1_at(labels, scores, limits), expected.mean(), rtol=1e-12)


@settings(max_examples=60)
@given(cases())
def test_no_threshold_has_a_higher_f1_than_the_best(case):
    labels, scores, _ = case
    best = metrics.best_thresholds(labels, scores)
    np.testing.assert_array_equal(np.isnan(best), ~labels.any(axis=0))
    reached = metrics.class_f1_at(labels, scores, best)
    for limit in np.unique(np.append(scores, [-1, 2])):
        f1 = metrics.class_f1_at(labels, scores, np.full(3, limit))
        assert not np.any(f1 > reached + 1e-12)
        assert not np.any((limit > best) & (f1 > reached - 1e-12))  # of equals, the highest


def test_best_thresholds_by_hand():
    labels = np.array([[1, 0], [1, 0], [0, 0], [1, 0]])
    scores = np.array([[0.9, 0.1], [0.6, 0.2], [0.6, 0.3], [0.2, 0.4]])
    # F1 at 0.9, 0.6, 0.2: 1/2, 2/3, 6/7.
    np.testing.assert_array_equal(metrics.best_thresholds(labels, scores), [0.2, np.nan])


def test_an_undefined_threshold_makes_f1_undefined():
    labels, scores = np.array([[1, 0], [0, 1]]), np.array([[0.9, 0.1], [0.2, 0.8]])
    np.testing.assert_array_equal(metrics.class_f1_at(labels, scores, [0.5, np.nan]), [1.0, np.nan])
    assert np.isnan(metrics.macro_f1_at(labels, scores, [0.5, np.nan]))
    assert np.isnan(metrics.sample_f1_at(labels, scores, [0.5, np.nan]))


EVERY_METRIC = {
    "class_auc": metrics.class_auc,
    "macro_auc": metrics.macro_auc,
    "macro_auc_present": metrics.macro_auc_present,
    "class_accuracy": lambda y, s, weights=None: metrics.class_accuracy(y, s, 0.5, weights),
    "mean_accuracy": lambda y, s, weights=None: metrics.mean_accuracy(y, s, 0.5, weights),
    "max_f1": lambda y, s, weights=None: metrics.max_f1(y, s, metrics.GRID_10, weights)[0],
    "precision": lambda y, s, weights=None: metrics.sample_precision_recall(y, s, metrics.GRID_10, weights)[0],
    "sample_f1_at": lambda y, s, weights=None: metrics.sample_f1_at(y, s, [0.1, 0.5, 0.9], weights),
    "class_f1_at": lambda y, s, weights=None: metrics.class_f1_at(y, s, [0.1, 0.5, 0.9], weights),
    "macro_f1_at": lambda y, s, weights=None: metrics.macro_f1_at(y, s, [0.1, 0.5, 0.9], weights),
}


@pytest.mark.parametrize("name", EVERY_METRIC)
@settings(max_examples=30)
@given(case=cases())
def test_weights_are_repetitions_and_lead_the_result(name, case):
    labels, scores, counts = case
    metric = EVERY_METRIC[name]
    once, repeated = metric(labels, scores), metric(labels.repeat(counts, axis=0), scores.repeat(counts, axis=0))
    both = metric(labels, scores, weights=np.array([np.ones(len(labels)), counts]))
    assert both.shape == (2, *once.shape)
    np.testing.assert_allclose(both, [once, repeated], rtol=1e-9, atol=1e-12)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1\) and scores \(2, 2\)"):
        metrics.class_auc(np.ones((2, 1)), np.ones((2, 2)))


def test_the_warning_names_the_classes_without_auc():
    labels = np.array([[0, 1, 1], [0, 1, 0]])
    with pytest.warns(DataWarning, match="no record has class HYP and every record has class MI: "):
        metrics.warn_undefined_auc(labels, ["HYP", "MI", "NORM"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.warn_undefined_auc(labels[:, 2:], ["NORM"])


def test_youden_thresholds_reach_the_best_sum_of_both_rates():
    draw = np.random.default_rng(4)
    labels = draw.random((60, 3)) < 0.3
    scores = np.round(labels + draw.normal(size=(60, 3)), 1)  # with ties
    found = metrics.youden_thresholds(labels, scores)
    for c in range(3):
        sums = {}
        for threshold in np.unique(scores[:, c]):
            both = metrics.rates(labels[:, c : c + 1], scores[:, c : c + 1] >= threshold)
            sums[threshold] = float(both["sensitivity"][0] + both["specificity"][0])
        best = [threshold for threshold, value in sums.items() if value > max(sums.values()) - 1e-12]
        assert found[c] == max(best)  # of equals the highest
    assert np.isnan(metrics.youden_thresholds([[0, 1], [0, 1]], [[0.1, 0.2], [0.3, 0.4]])).all()


def test_rates_of_weighted_records():
    labels, predicted = [[1], [1], [0]], [[1], [0], [1]]
    found = metrics.rates(labels, predicted, [[1, 1, 1], [3, 1, 0]])
    np.testing.assert_allclose(found["sensitivity"], [[0.5], [0.75]])
    np.testing.assert_array_equal(found["specificity"], [[0], [np.nan]])
    np.testing.assert_allclose(found["precision"], [[0.5], [1]])
    np.testing.assert_allclose(metrics.accuracy(labels, predicted, [[1, 1, 1], [3, 1, 0]]), [1 / 3, 0.75])
