"""Metrics in groups of records, and their differences to the others."""

import numpy as np
import pytest

from imlenet_jax.evaluation.calibration import calibration
from imlenet_jax.evaluation.confusion import confusion
from imlenet_jax.evaluation.diagrams import draw_groups, png
from imlenet_jax.evaluation.groups import evaluate_groups, format_groups, groups_frame
from imlenet_jax.evaluation.report import evaluate, sigmoid

CLASSES = ["A", "B", "rare"]
THRESHOLDS = [0.4, 0.5, 0.3]
LIMITS = [0.2, 0.3, np.nan]


@pytest.fixture(scope="module")
def records():
    """Labels, logits and groups: the network guesses A in the group `noisy`."""
    generator = np.random.default_rng(0)
    labels = generator.random((400, 3)) < [0.5, 0.3, 0]
    labels[::57, 2] = True  # 2 of the noisy ones, 6 of the quiet ones
    logits = generator.normal(size=labels.shape) + 3.0 * labels - 1.5
    noisy = np.arange(400) % 4 == 0
    logits[noisy, 0] = generator.normal(size=noisy.sum())
    few = np.arange(400) < 19
    return labels, logits, {"site": {"noisy": noisy, "quiet": ~noisy}, "ward": {"few": few, "most": ~few}}


@pytest.fixture(scope="module")
def report(records):
    labels, logits, columns = records
    return evaluate_groups(labels, logits, CLASSES, columns, THRESHOLDS, limits=LIMITS, resamples=300)


def test_metrics_are_those_of_the_records_of_the_group(records, report):
    labels, logits, columns = records
    for name, rows in columns["site"].items():
        group = report["by"]["site"][name]
        whole = evaluate(labels[rows], logits[rows], CLASSES, THRESHOLDS, resamples=300)
        assert group["n"] == whole["n"] and group["positives"] == whole["positives"]
        assert group["classes"] == ["A", "B"]
        metrics = group["metrics"]
        for metric in ("max_f1_10_thresholds", "max_f1_101_thresholds", "sample_f1_at_fold9_thresholds"):
            for key in ("value", "low", "high"):
                assert metrics[metric][key] == whole[metric][key], metric
        for metric in ("class_auc", "class_accuracy_at_0.5", "class_f1_at_fold9_thresholds"):
            assert metrics[metric]["A"]["low"] == whole[metric]["A"]["low"]
            mean = (whole[metric]["A"]["value"] + whole[metric]["B"]["value"]) / 2
            assert metrics[metric.replace("class_", "macro_")]["value"] == pytest.approx(mean, rel=1e-12)
            assert metrics[metric]["rare"] is None
        probabilities = sigmoid(logits[rows])
        decided = confusion(labels[rows], probabilities >= THRESHOLDS, CLASSES, resamples=2)["B"]
        kept = confusion(labels[rows], probabilities >= LIMITS, CLASSES, resamples=2)["B"]
        for rate in ("sensitivity", "specificity", "precision"):
            assert metrics[f"class_{rate}"]["B"]["value"] == decided[rate]["value"]
        assert metrics["class_coverage"]["B"]["value"] == kept["sensitivity"]["value"]
        calibrated = calibration(labels[rows], probabilities, CLASSES, resamples=2)["B"]
        for metric in ("brier", "bias"):
            assert metrics[f"class_{metric}"]["B"]["value"] == pytest.approx(calibrated[metric]["value"], rel=1e-12)


def test_a_difference_is_to_all_other_records(report):
    noisy, quiet = (report["by"]["site"][name]["metrics"] for name in ("noisy", "quiet"))
    for metric in ("class_auc", "class_sensitivity"):
        for label in ("A", "B"):
            gap = noisy[metric][label]["difference"]
            assert gap["value"] == noisy[metric][label]["value"] - quiet[metric][label]["value"]
            assert gap["low"] < gap["value"] < gap["high"]
    assert noisy["class_auc"]["A"]["difference"]["high"] < -0.2  # what was planted is found
    gap = noisy["class_auc"]["B"]["difference"]
    assert gap["low"] < 0 < gap["high"]


def test_what_is_too_small_says_so(report):
    ward = report["by"]["ward"]
    assert ward["few"]["metrics"] is None and ward["few"]["n"] == 19
    assert ward["most"]["metrics"]["macro_auc"]["difference"] is None  # to 19 records
    text = format_groups(report)
    assert "under 20 records, no metrics: few (19)" in text
    assert "site noisy: class_auc A" in text


def test_a_row_per_metric_and_class(report):
    frame = groups_frame(report)
    row = frame[(frame["group"] == "noisy") & (frame["metric"] == "class_auc") & (frame["class"] == "A")].iloc[0]
    entry = report["by"]["site"]["noisy"]["metrics"]["class_auc"]["A"]
    assert (row["value"], row["low"], row["difference"]) == (entry["value"], entry["low"], entry["difference"]["value"])
    assert (row["records"], row["with_class"]) == (100, report["by"]["site"]["noisy"]["positives"]["A"])
    assert frame[frame["group"] == "few"]["value"].isna().tolist() == [True]
    assert frame[(frame["metric"] == "class_auc") & (frame["class"] == "rare")]["value"].isna().all()


def test_the_figure_fills_what_is_clearly_different(report):
    figure = draw_groups(report, ["A", "B", "rare"], "title $x$")
    mean, a, b, rare = figure.axes[:4]
    filled = [
        [line.get_fillstyle() for line in panel.lines if line.get_marker() == "o"] for panel in (mean, a, b, rare)
    ]
    assert filled[1:] == [["full", "full"], ["none", "none"], []]
    assert [text.get_text() for text in mean.texts] == ["2 of 3", "2 of 3"]
    assert [label.get_text() for label in mean.get_yticklabels()] == ["noisy  n=100", "quiet  n=300"]
    assert png(figure)[:4] == b"\x89PNG"


def test_exclusive_classes_have_the_rates_of_the_most_probable(records):
    labels, logits, columns = records
    single = np.eye(3)[np.where(labels[:, 0], 0, np.where(labels[:, 1], 1, 2))]
    found = evaluate_groups(single, logits, CLASSES, {"site": columns["site"]}, exclusive=True, resamples=20)
    metrics = found["by"]["site"]["quiet"]["metrics"]
    rows = columns["site"]["quiet"]
    chosen = logits[rows].argmax(axis=1)
    assert metrics["accuracy"]["value"] == (chosen == single[rows].argmax(axis=1)).mean()
    assert metrics["class_sensitivity"]["A"]["value"] == pytest.approx((chosen[single[rows, 0] == 1] == 0).mean())
    assert "class_coverage" not in metrics
