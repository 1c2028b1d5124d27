"""The scaling benchmark: its plan, its fit, and a tiny run through the command."""

import json
import sys

import numpy as np
import pytest

from benchmarks.scaling import format_table, growth, main, plan, resized
from imlenet_jax.data.loader import select
from imlenet_jax.data.shards import open_shards

SIZES = [100, 200, 400, 800, 1600]


def test_one_size_varies_at_a_time():
    sweeps = plan([300, 100], [8, 4, 8], [1, 2])
    assert sweeps == {
        "records": [(100, 8, 1), (300, 8, 1)],
        "batchsize": [(300, 4, 1), (300, 8, 1)],
        "devices": [(300, 8, 1), (300, 8, 2)],
    }


@pytest.mark.parametrize("exponent", [1, 0, -0.5])
def test_a_straight_line_has_its_exponent_and_no_bend(exponent):
    found = growth(SIZES, [0.3 * size**exponent for size in SIZES])
    assert found["exponent"] == pytest.approx(exponent)
    assert found["bend"] is found["before"] is found["after"] is None


def test_a_bend_is_found_with_the_exponents_on_both_sides():
    found = growth(SIZES, [max(size, 400) ** 0.8 for size in SIZES])
    assert found["bend"] == 400
    assert (found["before"], found["after"]) == pytest.approx((0, 0.8))
    assert 0 < found["exponent"] < 0.8


def test_few_points_say_little():
    assert growth([5], [1.0]) == dict.fromkeys(("exponent", "bend", "before", "after"))
    assert growth([5, 10, 20], [1.0, 1.0, 2.0])["bend"] is None


def test_a_split_is_cut_or_repeated(synthetic_shards):
    split = select(open_shards(synthetic_shards), (1, 2), "training")
    assert resized(split, 5).rows.tolist() == split.rows[:5].tolist()
    longer = resized(split, len(split) + 2)
    assert longer.rows[-2:].tolist() == split.rows[:2].tolist()
    np.testing.assert_array_equal(longer.labels[-2:], split.labels[:2])


@pytest.fixture
def command(monkeypatch, capsys):
    """Run with flags; returns (exit status, standard output, standard error)."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, flags)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


def test_measures_in_a_process_per_number_of_devices(command, synthetic_shards, tmp_path):
    config = json.dumps({"filters": [2], "lstm_units": 2, "hidden": 2, "window": 500})
    sizes = ["--records", 16, 32, "--batchsize", 8, "--devices", 1, 2, "--epochs", 2]
    status, text, error = command("--data_dir", synthetic_shards, "--config", config, *sizes, "--out", tmp_path)
    assert status == 0, error
    results = json.loads((tmp_path / "scaling.json").read_text())
    rows = results["sweeps"]["devices"]["rows"]
    assert [(row["records"], row["batchsize"], row["devices"]) for row in rows] == [(32, 8, 1), (32, 8, 2)]
    assert all(0 < row["min_s"] <= row["median_s"] <= row["max_s"] for row in rows)
    assert rows[0]["records_per_s"] == pytest.approx(32 / rows[0]["median_s"])
    assert results["sweeps"]["records"]["rows"][1] == rows[0]  # the same point, measured once
    assert (tmp_path / "scaling.md").read_text() == format_table(results) and format_table(results) in text
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batchsize", 6, "--devices", 4], "--batchsize 6 does not divide over --devices 4"),
        (["--records", 16, 64, "--batchsize", 32], "a batch that is larger than --records"),
        (["--config", '{"depth": 1}'], "mousavi has no option 'depth'"),
        (["--model", "vgg"], "invalid choice: 'vgg'"),
        (["--data_dir", "nowhere"], "measuring with 1 device(s) failed: --data_dir nowhere: no such folder"),
    ],
)
def test_refuses_in_one_sentence(command, flags, sentence):
    status, _, error = command(*flags)
    assert status == 2 and sentence in error and error.count("\n") == 1
