"""Sets of classes that cannot be ruled out: thresholds, the guarantee, and what is measured."""

import numpy as np
import pytest

from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.conformal import (
    evaluate_sets,
    expected_range,
    fewest,
    format_sets,
    possible,
    rule_out_thresholds,
    sets_frame,
    thresholds_of,
)


@pytest.mark.parametrize(("coverage", "count"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_how_many_records_a_coverage_takes(coverage, count):
    assert fewest(coverage) == count
    scores = np.linspace(0.9, 0.1, count)[:, None]
    assert rule_out_thresholds(np.ones_like(scores), scores, coverage) == np.float32(scores.min())
    assert np.isnan(rule_out_thresholds(np.ones_like(scores[1:]), scores[1:], coverage)).all()


def test_the_threshold_is_among_the_records_with_the_class():
    scores = np.arange(40)[:, None] / 40
    labels = np.arange(40)[:, None] % 2  # odd ones: 1/40, 3/40, ...
    assert rule_out_thresholds(labels, scores, 0.9) == np.float32(3 / 40)  # the 2nd of 20, as 0.1 * 21 = 2.1
    assert possible([[3 / 40], [0.0749]], [np.float32(3 / 40)]).ravel().tolist() == [True, False]


def test_the_coverage_is_kept_on_average_and_spreads_as_expected():
    generator = np.random.default_rng(0)
    true = []
    for _ in range(2000):
        scores = generator.random((30, 1))  # of records with the class, so that the true coverage is 1 - threshold
        true.append(1 - rule_out_thresholds(np.ones((30, 1)), scores, 0.9).item())
    assert np.mean(true) == pytest.approx(28 / 31, abs=0.003)  # the 3rd of 30: at least 0.9
    assert np.quantile(true, [0.025, 0.975]) == pytest.approx(expected_range(30, 0.9), abs=0.01)


def records(n, seed):
    generator = np.random.default_rng(seed)
    labels = generator.random((n, 3)) < [0.5, 0.3, 4.5 / n]
    return labels.astype(np.uint8), 1 / (1 + np.exp(-generator.normal(size=labels.shape) - 3.0 * labels + 1.5))


def test_sets_are_measured_on_other_records():
    calibration, (labels, probabilities) = records(200, 1), records(300, 2)
    found = evaluate_sets(calibration, (labels, probabilities), ["A", "B", "C"], 0.9, resamples=200)
    limits = rule_out_thresholds(*calibration, 0.9)
    assert found["without"] == ["C"] and np.isnan(limits[2])
    np.testing.assert_array_equal(thresholds_of(found, ["A", "B", "C"]), limits)
    truth, kept = labels[:, :2].astype(bool), probabilities[:, :2].astype(np.float32) >= limits[:2]
    for place, name in enumerate("AB"):
        entry = found["classes"][name]
        assert entry["calibrated_on"] == calibration[0][:, place].sum()
        assert entry["coverage"]["value"] == pytest.approx(kept[truth[:, place], place].mean())
        assert entry["ruled_out"]["value"] == pytest.approx(1 - kept[~truth[:, place], place].mean())
        assert entry["coverage"]["low"] < entry["coverage"]["value"] < entry["coverage"]["high"]
    assert found["size"]["value"] == pytest.approx(kept.sum(axis=1).mean())
    assert found["empty"]["value"] == pytest.approx((kept.sum(axis=1) == 0).mean())
    assert found["all_covered"]["value"] == pytest.approx((kept | ~truth).all(axis=1).mean())
    text = format_sets(found)
    assert "under 9 validation records have it: C" in text and "exchangeable" in text


def test_a_row_per_record_names_its_classes_and_those_left():
    frame = sets_frame(
        [7, 9], [[1, 0, 1], [0, 1, 0]], [[0.9, 0.1, 0.5], [0.2, 0.1, 0.9]], [0.5, 0.3, np.nan], list("ABC")
    )
    assert frame.to_dict("list") == {"ecg_id": [7, 9], "labels": ["A;C", "B"], "set": ["A", ""]}


def test_too_few_records_for_every_class_are_refused():
    with pytest.raises(UserError, match=r"--coverage 0.9 takes 9 validation records with a class, and no class has"):
        evaluate_sets((np.eye(3), np.eye(3)), (np.eye(3), np.eye(3)), ["A", "B", "C"], 0.9)
