"""Groups of records by a column of what is known of them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.groups import columns_of, group_records
from imlenet_jax.data.shards import open_shards
from imlenet_jax.errors import UserError


def members(cells, column, **more):
    return {name: np.flatnonzero(mask).tolist() for name, mask in group_records(cells, column, **more).items()}


def test_ages_are_years_and_300_is_over_89():
    cells = ["39.9", "40", "59", "60", "79", "80", "300", "", "NaN", "-1", "121", "old"]
    assert members(cells, "Age") == {
        "under 40": [0],
        "40 to 59": [1, 2],
        "60 to 79": [3, 4],
        "80 and over": [5, 6],
        "not stated": [7, 8, 9, 10, 11],
    }


def test_few_values_are_taken_as_they_are_the_commonest_first():
    assert members(["1.0", "0.0", "1", "", "2.0"], "site") == {"1": [0, 2], "0": [1], "2": [4], "not stated": [3]}
    assert members(["20230101", "20230102"], "visit") == {"20230101": [0], "20230102": [1]}
    assert members(["B", "A", "A 1"], "device") == {"A": [1], "A 1": [2], "B": [0]}
    assert members(["AT-6  C", "AT-6 C"], "device") == {"AT-6 C": [0, 1]}


def test_codes_of_a_sex_are_named_where_they_are_known():
    assert members(["0", "1", "1"], "sex", sexes={"0": "male", "1": "female"}) == {"female": [1, 2], "male": [0]}
    assert members(["0", "1", "1"], "sex") == {"1": [1, 2], "0": [0]}


def test_many_numbers_are_cut_into_quarters():
    cells = [str(number) for number in range(100)] + [""]
    found = group_records(cells, "height")
    assert list(found) == [
        "0 to under 24.75",
        "24.75 to under 49.5",
        "49.5 to under 74.25",
        "74.25 to 99",
        "not stated",
    ]
    assert [int(mask.sum()) for mask in found.values()] == [25, 25, 25, 25, 1]
    assert len(members([*cells, "tall"], "height")) == 102  # not all numbers


@given(st.lists(st.sampled_from(["", "0", "1", "nan", "inf", "-3", "300", "45.5", "male", "x y"]) | st.text(), min_size=1),
       st.sampled_from(["age", "sex", "device"]))  # fmt: skip
def test_every_record_is_in_one_group(cells, column):
    groups = group_records(cells, column, {"0": "male"})
    assert (np.sum(list(groups.values()), axis=0) == 1).all()
    assert all(mask.any() for mask in groups.values())


def test_columns_of_a_data_set(synthetic_shards):
    dataset = open_shards(synthetic_shards)
    rows = np.arange(5, len(dataset))
    found = columns_of(dataset, ["sex", "age"], rows)
    assert sorted(found["sex"]) == ["female", "male"]
    assert found["sex"]["male"].tolist() == (dataset.about["sex"][rows] == "0").tolist()
    own = dataclasses.replace(dataset, source="own recordings")
    assert sorted(columns_of(own, ["sex"], rows)["sex"]) == ["0", "1"]
    with pytest.raises(UserError, match=r"--by shoe: .* has no such column; it has age, sex"):
        columns_of(dataset, ["shoe", "sex"], rows)
