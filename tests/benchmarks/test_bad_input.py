"""Every case of the catalogue of bad input ends in its own sentence."""

import pytest

from benchmarks.bad_input import CASES, HOSTILE, attempt, copy_world, hostile_endings, make_world


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("bad_input") / "pristine")


@pytest.mark.parametrize("case", CASES, ids=[f"{case.file}: {case.defect}" for case in CASES])
def test_bad_input_is_named(case, pristine, tmp_path):
    world = copy_world(pristine, tmp_path / "world")
    ending = attempt(case, world)
    assert ending.expected, (ending.how, ending.said)


def test_each_case_has_a_sentence_of_its_own():
    assert len(CASES) >= 60
    assert {(case.file, case.defect) for case in CASES} >= HOSTILE
    file, defect = sorted(HOSTILE)[0]
    tried = [{"file": file, "defect": defect, "how": "crashed"}, {"file": file, "defect": "-", "how": "refused"}]
    assert hostile_endings({"cases": tried}) == ["crashed"]
    assert len({case.sentence for case in CASES}) == len({(case.file, case.defect) for case in CASES}) == len(CASES)


def test_what_is_accepted_or_crashes_is_not_expected(pristine, tmp_path):
    case = CASES[0]
    accepted = attempt(case._replace(use=lambda world: None), pristine)
    crashed = attempt(case._replace(use=lambda world: 1 / 0, sentence="division"), pristine)
    assert (accepted.how, accepted.expected) == ("accepted", False)
    assert (crashed.how, crashed.said, crashed.expected) == ("crashed", "ZeroDivisionError: division by zero", False)
