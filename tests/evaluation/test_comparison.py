"""Comparing networks: the file they are read from, what is refused, and the paired bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.comparison import (
    METRICS,
    Predictions,
    compare,
    format_comparison,
    read_predictions,
    two_sided_p,
)
from imlenet_jax.evaluation.diagrams import draw_comparison, png
from imlenet_jax.evaluation.metrics import macro_auc
from imlenet_jax.evaluation.report import predictions_frame

CLASSES = ("CD", "a,b", 'q"')


def predictions(noise, name="net", n=300, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.random((n, 2)) < 0.4
    scores = labels + noise * np.random.default_rng(seed + 1).normal(size=(n, 2))
    return Predictions(name, np.arange(n), labels, 1 / (1 + np.exp(-scores)), ("A", "B"))


@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_what_was_written_is_read(tmp_path_factory, ids, random, named):
    path = tmp_path_factory.mktemp("csv") / "net_test_predictions.csv"
    labels = np.array([[random.random() < 0.5 for _ in CLASSES] for _ in ids])
    values = np.array([[random.choice([0.0, 1.0, 5e-324, random.random()]) for _ in CLASSES] for _ in ids])
    names = [random.choice(["a,b", "ü", "1", "label_A"]) for _ in ids] if named else None
    path.write_bytes(predictions_frame(ids, labels, values, CLASSES, names).to_csv(index=False).encode())
    found, order = read_predictions(path), np.argsort(ids)
    assert found.name == "net_test" and found.classes == CLASSES
    assert found.ecg_id.tolist() == sorted(ids)
    np.testing.assert_array_equal(found.labels, labels[order])
    np.testing.assert_array_equal(found.probabilities, values[order])  # to the last bit


GOOD = b"ecg_id,label_A,label_B,prob_A,prob_B\n1,0,1,0.25,0.5\n2,1,0,1.0,1e-3\n"


@given(
    st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, len(GOOD)), st.integers(0, 9), st.binary(max_size=9)))
)
def test_any_other_file_is_refused_in_one_sentence_or_read_whole(tmp_path_factory, change):
    at, length, new = change if isinstance(change, tuple) else (0, len(GOOD), change)
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(GOOD[:at] + new + GOOD[at + length :])
    try:
        found = read_predictions(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert found.probabilities.shape == found.labels.shape == (len(found.ecg_id), len(found.classes))
        assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ecg_id,label_A\n1,0\n", "its columns are not ecg_id, label_<class>..., prob_<class>..."),
        ("ecg_id,label_A,prob_A\n", "it has no records"),
        ("ecg_id,label_A,prob_A\n1,0,0.5\n2,1,\n", "data row 2 is not 3 numbers"),
        ("ecg_id,label_A,prob_A\n1.5,0,0.5\n", "an ecg_id is not a whole number"),
        ("ecg_id,label_A,prob_A\n1,0,0.5\n1,1,0.5\n", "it has an ecg_id more than once"),
        ("ecg_id,label_A,prob_A\n1,2,0.5\n", "a label is neither 0 nor 1"),
        ("ecg_id,label_A,prob_A\n1,1,1.5\n", "a probability is not from 0 to 1"),
        (
            "ecg_id,label_A,prob_A\n1,1,half\n",
            "is not a file of predictions (data row 1 is not 3 numbers): make it anew",
        ),
        ("ecg_id,label_A,prob_A\n1,1,0.5,7\n", "data row 1 is not 3 numbers"),
        ("ecg_id,label_A,prob_A\n1,1,nan\n", "data row 1 is not 3 numbers"),
    ],
)
def test_the_reason_is_named(tmp_path, text, reason):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError) as raised:
        read_predictions(tmp_path / "x.csv")
    assert reason in str(raised.value)


def test_other_records_labels_or_classes_are_refused():
    a = predictions(1)
    fields = {"ecg_id": a.ecg_id, "labels": a.labels, "probabilities": a.probabilities, "classes": a.classes}
    for change, sentence in (
        ({"classes": ("A", "C")}, "net and other cannot be compared: their classes are A, B and A, C"),
        ({"ecg_id": a.ecg_id + 1}, "2 records are in one file only, the first is ecg_id 0"),
        ({"labels": a.labels ^ (a.ecg_id == 7)[:, None]}, "1 records have other labels, the first is ecg_id 7"),
    ):
        with pytest.raises(UserError, match=sentence):
            compare([a, Predictions("other", **(fields | change))], resamples=2)
    with pytest.raises(UserError, match="two networks at least"):
        compare([a])


def test_a_better_network_is_told_from_an_equal_one():
    good, same, bad = predictions(0.7, "good"), predictions(0.7, "good"), predictions(3, "bad")
    report = compare([good, same, bad], resamples=200)
    values, gaps = report["values"]["macro_auc"], report["differences"]["macro_auc"]
    assert list(values) == ["good (1)", "good (2)", "bad"]
    assert gaps["good (2)"] == {"value": 0, "low": 0, "high": 0, "p": 1}
    assert gaps["bad"]["value"] == macro_auc(bad.labels, bad.probabilities) - macro_auc(good.labels, good.probabilities)
    assert gaps["bad"]["low"] < gaps["bad"]["value"] < gaps["bad"]["high"] < 0
    assert gaps["bad"]["p"] == pytest.approx(2 / 201)
    assert report["differences"]["mean_brier"]["bad"]["low"] > 0
    width = values["bad"]["high"] - values["bad"]["low"]
    close = compare([good, predictions(0.72, "close")], resamples=200)["differences"]["macro_auc"]["close"]
    assert close["high"] - close["low"] < width / 2  # pairing: the same records are drawn for both

    table = format_comparison(report)
    assert table.count("macro_auc") == 3 and "Differences: from good (1)" in table
    panels = draw_comparison(report).axes
    assert [panel.get_title(loc="left").split()[0] for panel in panels] == list(METRICS)


def test_names_of_networks_are_not_typeset():
    report = compare([predictions(1.0, "$x_$"), predictions(2.0, "$\\frac$")], resamples=10, seed=0)
    assert png(draw_comparison(report))[:4] == b"\x89PNG"


def test_a_file_far_larger_than_any_predictions_is_not_read(tmp_path):
    with open(tmp_path / "p.csv", "wb") as file:
        file.truncate(2**26 + 1)  # sparse
    with pytest.raises(UserError, match=r"p\.csv is not a file of predictions \(it has more than 67,108,864 bytes"):
        read_predictions(tmp_path / "p.csv")


def test_p_of_differences():
    assert two_sided_p(np.array([-1.0, 1, 1, 1, np.nan])) == pytest.approx(4 / 5)
    assert two_sided_p(np.full(3, np.nan)) is None
