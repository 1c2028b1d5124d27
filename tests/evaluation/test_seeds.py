"""Mean and interval over seeds, against figures worked out by hand."""

import pytest

from imlenet_jax.evaluation.seeds import format_seeds, over_seeds


def test_mean_and_students_interval():
    reports = [{"n": 3, "macro_auc": {"value": v}, "class_auc": {"MI": {"value": v}}} for v in (0.8, 0.9, 0.7)]
    summary = over_seeds(reports)
    assert list(summary) == ["macro_auc"]
    half = 4.302653 * 0.1 / 3**0.5  # Student's t at 97.5 %, two degrees of freedom
    assert summary["macro_auc"] == pytest.approx(
        {"mean": 0.8, "low": 0.8 - half, "high": 0.8 + half, "std": 0.1, "n": 3}
    )
    assert "macro_auc  0.8000  [0.5516, 1.0484]" in format_seeds(summary)


def test_a_metric_that_does_not_exist_for_one_seed_is_left_out():
    assert over_seeds([{"macro_auc": {"value": 0.8}}, {"macro_auc": {"value": None}}]) == {}
