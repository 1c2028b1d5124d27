"""Predictions in words."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from imlenet_jax.data.ecg import ECG
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.tasks import Task
from imlenet_jax.explanation.explain import PURPOSE, Explanation, Sets, explain
from imlenet_jax.explanation.saliency import baseline
from imlenet_jax.export.verify import synthetic_ecgs
from tests.export.test_files import make


@pytest.mark.parametrize(
    ("thresholds", "predicted", "verdict"),
    [
        ((0.5, 0.2, 0.9), (False, True, True), "MI, NORM"),
        ((0.5, 0.3, 0.91), (False, False, False), "none"),
        ((0.5, None, 0.9), (False, None, True), "NORM"),
        ((0.5, None, 0.95), (False, None, False), "none"),
        ((None, None, None), (None, None, None), "no thresholds"),
    ],
)
def test_classes_are_predicted_from_their_threshold_on(thresholds, predicted, verdict):
    signal, probabilities = np.zeros((1000, 12)), np.array([0.1, 0.2, 0.9])
    explanation = Explanation("x", signal, 100, ("I",) * 12, ("CD", "MI", "NORM"), probabilities, thresholds)
    assert explanation.predicted == predicted
    assert explanation.verdict == verdict


def test_of_exclusive_classes_the_most_probable_is_predicted():
    signal, probabilities = np.zeros((1000, 12)), np.array([0.3, 0.45, 0.25])
    names = ("ASMI", "IMI", "NORM")
    explanation = Explanation("x", signal, 100, ("I",) * 12, names, probabilities, (None,) * 3, exclusive=True)
    assert explanation.predicted == (False, True, False) and explanation.verdict == "IMI"
    assert explanation.as_json()["classes"]["IMI"] == {"probability": 0.45, "threshold": None, "predicted": True}


def test_what_cannot_be_ruled_out():
    signal, probabilities = np.zeros((1000, 12)), np.array([0.1, 0.2, 0.9], np.float32)
    explanation = Explanation("x", signal, 100, ("I",) * 12, ("CD", "MI", "NORM"), probabilities, (None,) * 3)
    assert explanation.possible == (None,) * 3 and explanation.not_ruled_out == ""
    assert "coverage" not in explanation.as_json()
    for limits, possible, text in (
        ((float(np.float32(0.1)), 0.3, None), (True, False, None), "CD (not judged: NORM)"),
        ((0.2, 0.3, 0.95), (False, False, False), "none"),
    ):
        found = replace(explanation, sets=Sets(0.9, limits))
        assert found.possible == possible and found.not_ruled_out == text
        described = found.as_json()
        assert described["coverage"] == 0.9
        assert tuple(entry["possible"] for entry in described["classes"].values()) == possible


class Network:
    """In place of a Classifier: probabilities and attention that tell which record they are of."""

    classes, leads, sampling_rate, task = ("CD", "MI"), LEADS, 100, Task("two", ("CD", "MI"))

    def __init__(self, model="imle_net", thresholds=(0.5, None)):
        self.meta, self.attends = SimpleNamespace(model=model, thresholds=thresholds), model == "imle_net"
        self.batches = []

    def predict_proba(self, signals, batchsize):
        self.batches.append((len(signals), batchsize))
        return np.stack([signals[:, 0, 0], 1 - signals[:, 0, 0]], axis=1)

    def attend(self, signals, batchsize):
        n = len(signals)
        channel = np.ones((n, 12))
        channel[:, 7] += signals[:, 0, 0]
        channel[:, 2] += 0.5 * signals[:, 0, 0]
        levels = {"beat": np.ones((n, 12, 20, 13)), "rhythm": np.ones((n, 12, 20)), "channel": channel}
        return {name: level / level.sum(-1, keepdims=True) for name, level in levels.items()}


def ecgs(count):
    signals = np.zeros((count, 1000, 12), np.float32)
    signals[:, 0, 0] = np.arange(count) / 8
    return [ECG(f"r{row}", "", Path("r.hea"), signal, ("cut",), ("flat",), 1.0) for row, signal in enumerate(signals)]


def test_every_ecg_gets_its_own_answer_in_batches_of_one_size():
    network = Network()
    explained = explain(network, ecgs(5), batchsize=4)
    assert network.batches == [(8, 4)]
    assert [one.name for one in explained] == ["r0", "r1", "r2", "r3", "r4"]
    np.testing.assert_allclose([one.probabilities[0] for one in explained], np.arange(5) / 8)
    assert explained[4].predicted == (True, None) and explained[3].predicted == (False, None)
    assert explained[0].notes == ("implausible: flat", "cut")
    np.testing.assert_allclose(explained[4].attention.channel[7], 1.5 / 12.75)
    assert [lead for lead, _ in explained[4].most_attended()] == ["V2", "III", "I"]
    np.testing.assert_allclose(explained[4].most_attended(1)[0][1], 1.5 / 12.75)


def test_the_json_says_it_all():
    report = json.loads(json.dumps(explain(Network(), ecgs(5))[4].as_json(), allow_nan=False))
    assert report["purpose"] == PURPOSE == "For research, not for diagnosis."
    assert report["classes"]["CD"] == {"probability": 0.5, "threshold": 0.5, "predicted": True}
    assert report["classes"]["MI"] == {"probability": 0.5, "threshold": None, "predicted": None}
    assert report["most_attended_leads"] == ["V2", "III", "I"]
    assert list(report["attention"]) == list(LEADS)
    np.testing.assert_allclose(report["attention"]["V2"]["windows"], [0.05] * 20)


def test_networks_without_attention_or_thresholds_are_explained_without():
    (one,) = explain(Network("mousavi", None), ecgs(1))
    assert one.attention is None and one.most_attended() == [] and one.thresholds == (None, None)
    assert "attention" not in one.as_json()


def test_of_many_classes_the_most_probable_are_shown():
    rng = np.random.default_rng(0)
    names, values = tuple(f"C{number}" for number in range(20)), rng.permutation(20) / 20
    signal = rng.normal(0, 0.3, (1000, 12))
    explanation = Explanation("r", signal, 100, LEADS, names, values, (None,) * 20)
    shown = explanation.most_probable(3)
    assert [row[1] for row in shown] == [0.95, 0.9, 0.85] and names[int(values.argmax())] == shown[0][0]
    assert [row[0] for row in explanation.most_probable(20)] == list(names)


@pytest.fixture(scope="module", params=["imle_net", "mousavi"])
def explained(request):
    """A tiny network, and three ECGs for it."""
    classifier = make(request.param, thresholds=[0.0, 2.0, None, 2.0, 0.0])
    ecgs = [ECG(f"r{n}", "", Path("x"), signal, (), (), 1.0) for n, signal in enumerate(synthetic_ecgs(classifier, 3))]
    return classifier, ecgs


def test_gradients_add_up_to_the_logit_above_that_of_a_flat_line(explained):
    classifier, ecgs = explained
    found = explain(classifier, ecgs, batchsize=4, maps="both")
    assert [list(each.gradients) for each in found] == [["CD", "STTC"]] * 3  # those that are predicted
    assert (found[0].attention is not None) == (classifier.meta.model == "imle_net")
    signals = np.stack([ecg.signal_mv for ecg in ecgs])
    rise = classifier.logits(signals) - classifier.logits(np.repeat(baseline(signals), signals.shape[1], axis=1))
    for row, each in enumerate(found):
        for name, gradient in each.gradients.items():
            assert gradient.shape == (12, signals.shape[1])
            expected = float(rise[row, classifier.classes.index(name)])
            assert gradient.sum() == pytest.approx(expected, abs=0.05 * max(1, abs(expected)))
            by_lead = each.by_lead(name)
            assert [value for _, value in by_lead] == sorted((value for _, value in by_lead), reverse=True)
            assert dict(by_lead)["V1"] == pytest.approx(gradient[6].sum())
            assert each.as_json()["classes"][name]["logit_by_lead"] == dict(by_lead)


def test_which_classes_and_maps_are_explained(explained):
    classifier, ecgs = explained
    (one,) = explain(classifier, ecgs[:1], maps="gradients", explained=["NORM", "MI"])
    assert list(one.gradients) == ["NORM", "MI"] and one.attention is None
    unsure = copy.copy(classifier)
    unsure.meta = replace(classifier.meta, thresholds=None)
    (one,) = explain(unsure, ecgs[:1], maps="gradients")
    assert list(one.gradients) == [classifier.classes[int(one.probabilities.argmax())]]
    (one,) = explain(classifier, ecgs[:1])
    assert one.gradients == {} and "logit_by_lead" not in one.as_json()["classes"]["CD"]
