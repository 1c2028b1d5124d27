"""Labels of the sub-diagnosis, and the reference's leaking split."""

import numpy as np
import pytest

from imlenet_jax.data.infarction import reference_split
from imlenet_jax.data.tasks import SUB

ASMI, IMI, NORM, NONE = [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"ASMI": 100.0}, ASMI),
        ({"IMI": 80.0, "SR": 0.0}, IMI),
        ({"ASMI": 0.0}, ASMI),
        ({"ASMI": 50.0}, NONE),
        ({"ASMI": 35.0, "IMI": 100.0}, IMI),
        ({"ASMI": 100.0, "IMI": 0.0}, NONE),
        ({"NORM": 100.0}, NORM),
        ({"NORM": 80.0}, NONE),
        ({"NORM": 0.0}, NONE),
        ({"NORM": 100.0, "IMI": 80.0}, NONE),
        ({"ALMI": 100.0}, NONE),
        ({}, NONE),
    ],
)
def test_a_record_has_exactly_one_class_or_is_left_out(codes, expected):
    assert SUB.labels([codes]).tolist() == [expected]


def test_min_likelihood_drops_stated_ones_only():
    codes = [{"ASMI": 80.0}, {"ASMI": 0.0}, {"ASMI": 100.0, "IMI": 80.0}]
    assert SUB.labels(codes, min_likelihood=90).tolist() == [NONE, ASMI, ASMI]


def test_the_reference_split_takes_the_first_normal_records_of_its_folds():
    labels = np.array([ASMI, IMI, NONE, IMI] + 2100 * [NORM])
    fold = np.array([1, 9, 1, 10] + 700 * [2] + 350 * [1] + 150 * [3] + 200 * [9] + 700 * [3])
    assert reference_split(labels, fold, training=True).tolist() == [0, *range(4, 904)]
    test = reference_split(labels, fold, training=False)
    assert test.tolist() == [1, 3, *range(1054, 1204), *range(1404, 1454)]
    assert set(fold[test[2:]]) == {3}
