"""The fuzzer: no reader fails on a handful of damaged files, and one that does is told of."""

import random

import pytest

from benchmarks.bad_input import make_world
from benchmarks.fuzz import Target, damage, fuzz, targets
from imlenet_jax.errors import UserError


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return targets(make_world(tmp_path_factory.mktemp("fuzz") / "world"))


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(readers):
    for name, target in readers.items():
        result = fuzz(target, 20, "test")
        assert result["crashes"] == [] and result["crashed"] == 0, (name, result["crashes"])
        assert result["refused"] > 0 and result["refused"] + result["read"] == result["cases"] == 20, name


def test_other_exceptions_are_counted_and_shown(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"healthy")

    def read():
        if path.read_bytes() != b"healthy":
            raise KeyError("ours")

    result = fuzz(Target(path, read), 30, "test")
    assert result["crashed"] > 0 and "KeyError: 'ours'" in result["crashes"][0]
    assert path.read_bytes() == b"healthy"


def test_a_sentence_of_two_lines_is_none(tmp_path):
    (tmp_path / "a").write_bytes(b"healthy")
    calls = []

    def read():
        calls.append(1)
        if len(calls) > 1:
            raise UserError("one\ntwo")

    assert fuzz(Target(tmp_path / "a", read), 3, "test")["crashed"] == 3


def test_damage_follows_the_seed():
    damaged = [damage(b"0123456789" * 9, random.Random(seed)) for seed in (1, 1, 2)]
    assert damaged[0] == damaged[1] != damaged[2]
