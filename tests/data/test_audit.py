"""The audit of labels, on records whose statements are chosen."""

import dataclasses

import numpy as np
import pytest

from imlenet_jax.data.audit import class_table, contradictions, patients_across_folds, together, validators
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.shards import open_shards

CODES = [
    {"NORM": 100.0, "SR": 0.0},
    {"NORM": 80.0, "IMI": 15.0},
    {"IMI": 0.0},
    {"IMI": 35.0, "LVH": 50.0},
    {"LVH": 0.0, "CRBBB": 100.0},
    {"SR": 0.0},
]
FOLDS = {"train": (1, 2), "test": (3,)}


@pytest.fixture
def dataset(tiny_ptbxl, tmp_path):
    whole = open_shards(prepare(tiny_ptbxl.path, tmp_path / "out", progress=False))
    about = {"validated_by": np.array(["0", "1", "1", "", "1", ""]), "validated_by_human": np.array(6 * ["True"])}
    numbers = np.arange(6)
    columns = {"ecg_id": numbers + 1, "patient_id": numbers // 2, "fold": numbers // 2 + 1}
    return dataclasses.replace(whole, **columns, scp_codes=CODES, about=about)


def test_a_class_has_its_records_per_fold_and_by_likelihood(dataset):
    table = class_table(dataset, dataset.task(), FOLDS)
    assert table.loc["MI", ["records", "train", "test", "not_stated"]].tolist() == [3, 3, 0, 1]
    assert table.loc["HYP", ["records", "train", "test", "not_stated"]].tolist() == [2, 1, 1, 1]
    dropped = [f"dropped_below_{likelihood}" for likelihood in (15, 35, 50, 80, 100)]
    assert table.loc["MI", dropped].tolist() == [0, 1, 2, 2, 2]
    assert table.loc["NORM", dropped].tolist() == [0, 0, 0, 0, 1]
    assert table.loc["CD", "most_often_with"] == "HYP (1)" and table.loc["STTC", "most_often_with"] == ""
    assert table["validated_by_human"].tolist() == table["records"].tolist()
    assert "second_opinion" not in table


def test_classes_that_come_together_are_counted():
    assert together(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], np.uint8)).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_who_validated_is_counted(dataset):
    found = validators(dataset, dataset.task())
    assert found["records"].to_dict() == {"1": 3, "not stated": 2, "0": 1}
    assert found.loc["1", ["HYP", "MI", "NORM"]].tolist() == [1, 2, 1]
    assert not len(validators(dataclasses.replace(dataset, about={}), dataset.task()))


def test_a_normal_record_with_another_diagnosis_contradicts_itself(dataset):
    assert contradictions(dataset).to_numpy().tolist() == [[2, "MI NORM", "NORM 80, IMI 15"]]


def test_patients_across_folds_are_found(dataset):
    assert not len(patients_across_folds(dataset))
    assert patients_across_folds(dataclasses.replace(dataset, fold=np.array([1, 2, 1, 1, 3, 1]))).tolist() == [0, 2]
