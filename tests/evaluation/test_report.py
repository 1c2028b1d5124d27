"""The report: every metric under its name, strict JSON, the table and the file of predictions."""

import json

import numpy as np
import pytest

from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.evaluation import metrics
from imlenet_jax.evaluation.published import FIGURES, REDDY, published
from imlenet_jax.evaluation.report import commonest, evaluate, format_table, predictions_frame, sigmoid

CLASSES = ["CD", "HYP", "MI", "NORM", "STTC"]
THRESHOLDS = [0.3, 0.4, 0.5, 0.6, 0.2]


def records(n=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 5)) < 0.3).astype(np.uint8)
    labels[~labels.any(axis=1), 3] = 1
    return labels, (2.0 * labels - 1 + rng.normal(size=(n, 5))).astype(np.float32)


def test_every_metric_has_its_definition():
    labels, logits = records()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    report = evaluate(labels, logits, CLASSES, THRESHOLDS, resamples=50)

    f1_10, at_10 = metrics.max_f1(labels, probabilities, metrics.GRID_10)
    f1_101, at_101 = metrics.max_f1(labels, probabilities, metrics.GRID_101)
    f1_logits, at_logits = metrics.max_f1(labels, logits, metrics.GRID_10)
    expected = {
        "macro_auc": metrics.macro_auc(labels, logits),
        "mean_accuracy_at_0.5": metrics.mean_accuracy(labels, probabilities),
        "max_f1_10_thresholds": f1_10,
        "max_f1_101_thresholds": f1_101,
        "mean_accuracy_at_0.5_of_logits": metrics.mean_accuracy(labels, logits),
        "max_f1_10_thresholds_of_logits": f1_logits,
        "macro_f1_at_fold9_thresholds": metrics.macro_f1_at(labels, probabilities, THRESHOLDS),
        "sample_f1_at_fold9_thresholds": metrics.sample_f1_at(labels, probabilities, THRESHOLDS),
    }
    for name, value in expected.items():
        assert report[name]["value"] == pytest.approx(float(value), rel=1e-12), name
    by_class = {
        "class_auc": metrics.class_auc(labels, logits),
        "class_accuracy_at_0.5": metrics.class_accuracy(labels, probabilities),
        "class_f1_at_fold9_thresholds": metrics.class_f1_at(labels, probabilities, THRESHOLDS),
    }
    for name, values in by_class.items():
        found = [report[name][label]["value"] for label in CLASSES]
        np.testing.assert_allclose(found, values, rtol=1e-12, err_msg=name)
    assert report["max_f1_10_thresholds"]["threshold"] == at_10
    assert report["max_f1_101_thresholds"]["threshold"] == at_101
    assert report["max_f1_10_thresholds_of_logits"]["threshold"] == at_logits
    assert [report["class_f1_at_fold9_thresholds"][label]["threshold"] for label in CLASSES] == THRESHOLDS
    assert set(report) == {*expected, *by_class, "n", "classes", "positives", "bootstrap"}


def test_every_metric_has_n_and_an_interval_around_it():
    labels, logits = records()
    report = evaluate(labels, logits, CLASSES, resamples=200, seed=4)
    assert report["n"] == 200
    assert report["positives"] == dict(zip(CLASSES, labels.sum(axis=0), strict=True))
    assert report["bootstrap"] == {"resamples": 200, "seed": 4, "level": 0.95}
    entries = [report["macro_auc"], report["max_f1_101_thresholds"], *report["class_auc"].values()]
    for entry in entries:
        assert entry["low"] < entry["value"] < entry["high"]
        assert (entry["n"], entry["left_out"]) == (200, 0)
    assert report == evaluate(labels, logits, CLASSES, resamples=200, seed=4)
    assert report != evaluate(labels, logits, CLASSES, resamples=200, seed=5)


def test_fold_9_metrics_only_with_thresholds():
    assert not [name for name in evaluate(*records(), CLASSES, resamples=2) if "fold9" in name]


def test_an_absent_class_is_named_and_null_in_strict_json():
    labels, logits = records()
    labels[:, 1] = 0
    with pytest.warns(DataWarning, match="no record has class HYP: "):
        report = evaluate(labels, logits, CLASSES, [0.3, None, 0.5, 0.6, 0.2], resamples=20)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for entry in (
        report["class_auc"]["HYP"],
        report["macro_auc"],
        report["class_f1_at_fold9_thresholds"]["HYP"],
        report["macro_f1_at_fold9_thresholds"],
    ):
        assert (entry["value"], entry["low"], entry["high"], entry["left_out"]) == (None, None, None, 1)
    assert report["class_f1_at_fold9_thresholds"]["HYP"]["threshold"] is None
    assert report["class_auc"]["MI"]["value"] is not None
    table = format_table(report, "imle_net")
    assert table.count("undefined") >= 8
    assert "left out" in table


def test_resamples_without_a_rare_class_are_left_out():
    labels, logits = records()
    labels[:, 1] = np.arange(200) == 7
    report = evaluate(labels, logits, CLASSES, resamples=400)
    assert report["class_auc"]["HYP"]["left_out"] == pytest.approx(np.exp(-1), abs=0.1)  # (1 - 1/n)^n
    assert report["macro_auc"]["left_out"] == report["class_auc"]["HYP"]["left_out"]
    assert report["macro_auc"]["low"] is not None


def test_one_record_is_enough_not_to_fail():
    with pytest.warns(DataWarning, match="no record has class CD, HYP, MI, STTC and every record has class NORM"):
        report = evaluate([[0, 0, 0, 1, 0]], [[-1, -1, -1, 2, -1]], CLASSES, resamples=5)
    assert report["max_f1_10_thresholds"]["value"] == 1.0
    json.dumps(report, allow_nan=False)


def test_bad_input_is_refused():
    labels, logits = records(10)
    logits[4, 2] = np.nan
    with pytest.raises(UserError, match=r"not a finite number for 1 of 10 records \(the first is number 4 "):
        evaluate(labels, logits, CLASSES)
    with pytest.raises(UserError, match="no records"):
        evaluate(labels[:0], logits[:0], CLASSES)
    with pytest.raises(ValueError, match="4 classes"):
        evaluate(labels, logits, CLASSES[:4])
    with pytest.raises(ValueError, match="one per class"):
        evaluate(labels, logits, CLASSES, thresholds=[0.5])


def row(table, name):
    return next(line for line in table.splitlines() if line.startswith(f"{name} ")).split()


@pytest.mark.parametrize(("model", "value"), [("xresnet1d101", "0.9280"), ("s4", "0.9320")])
def test_of_the_others_the_auc_is_published(model, value):
    table = format_table(evaluate(*records(), CLASSES, THRESHOLDS, resamples=10), model)
    assert row(table, "macro_auc")[-1] == value and row(table, "mean_accuracy_at_0.5")[-1] == "-"
    assert published(model)[0].source in table and max(map(len, table.splitlines())) <= 140


@pytest.mark.parametrize("model", dict.fromkeys(figure.model for figure in FIGURES if figure.source == REDDY))
def test_table_puts_the_published_figures_beside_the_metrics_that_they_are(model):
    report = evaluate(*records(), CLASSES, THRESHOLDS, resamples=10)
    table = format_table(report, model)
    torch = model in ("ecgnet", "resnet101")
    suffix, other = ("_of_logits", "") if torch else ("", "_of_logits")
    figures = {figure.metric: f"{figure.value:.4f}" for figure in published(model)}
    assert list(figures) == ["macro_auc", f"mean_accuracy_at_0.5{suffix}", f"max_f1_10_thresholds{suffix}"]
    assert {name: row(table, name)[-1] for name in figures} == figures
    assert published(model)[0].source in table
    assert row(table, f"mean_accuracy_at_0.5{other}")[-1] == "-"
    assert row(table, "max_f1_101_thresholds")[-1] == "-"
    assert ("computed on logits" in table) == torch
    entry = report["macro_auc"]
    expected = ["macro_auc", f"{entry['value']:.4f}", f"[{entry['low']:.4f},", f"{entry['high']:.4f}]", "200"]
    assert row(table, "macro_auc")[:-1] == expected
    assert "class_auc STTC" in table
    assert max(map(len, table.splitlines())) <= 140


@pytest.mark.parametrize("model", [None, "mine"])
def test_table_of_other_data_or_another_model_has_no_published_column(model):
    report = evaluate(*records(), CLASSES, resamples=2)
    table = format_table(report, model)
    assert "published" not in table.casefold()
    assert row(table, "macro_auc")[-1] == row(format_table(report, "imle_net"), "macro_auc")[-2] == "200"


def test_predictions_have_a_row_per_record():
    labels, logits = records(3)
    frame = predictions_frame([11, 12, 40], labels, sigmoid(logits), CLASSES)
    assert list(frame) == ["ecg_id", *(f"label_{c}" for c in CLASSES), *(f"prob_{c}" for c in CLASSES)]
    assert frame["ecg_id"].tolist() == [11, 12, 40]
    assert frame["label_MI"].tolist() == labels[:, 2].tolist()
    np.testing.assert_array_equal(frame["prob_STTC"], sigmoid(logits)[:, 4])
    with pytest.raises(ValueError, match="zip"):
        predictions_frame([11, 12, 40], labels, sigmoid(logits), CLASSES[:4])


def test_sigmoid_is_exact_far_out():
    np.testing.assert_allclose(sigmoid([-800.0, -40, 0, 40, 800]), [0, np.exp(-40), 0.5, 1, 1], rtol=1e-15)


def test_where_a_class_is_missing_the_others_have_a_mean():
    labels, logits = records()
    labels[:, 1] = 0
    with pytest.warns(DataWarning, match="no record has class HYP"):
        report = evaluate(labels, logits, CLASSES, resamples=20)
    found = report["macro_auc_present"]
    assert report["macro_auc"]["value"] is None and found["classes"] == 4
    assert found["value"] == pytest.approx(metrics.class_auc(labels, logits)[[0, 2, 3, 4]].mean())
    assert found["low"] < found["value"] < found["high"]
    assert "macro_auc_present (4 of 5 classes)" in format_table(report)
    assert "macro_auc_present" not in evaluate(*records(), CLASSES, resamples=20)


def test_of_many_classes_each_has_one_line():
    rng = np.random.default_rng(0)
    labels = (rng.random((100, 20)) < 0.3).astype(np.uint8)
    names = [f"C{number:02d}" for number in range(20)]
    report = evaluate(labels, rng.normal(size=(100, 20)), names, np.full(20, 0.5), resamples=10)
    lines = [line for line in format_table(report).splitlines() if line.startswith("C")]
    assert [line.split()[:2] for line in lines] == [[name, str(labels[:, n].sum())] for n, name in enumerate(names)]
    entry = report["class_auc"]["C03"]
    assert f"{entry['value']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]" in lines[3]
    assert "class_auc C03" not in format_table(report)
    assert commonest({"a": 3, "b": 9, "c": 5}, most=2) == ["b", "c"]
