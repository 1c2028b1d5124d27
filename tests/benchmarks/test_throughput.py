"""The throughput benchmark end to end on tiny networks; its timings are for people."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import benchmarks.throughput as throughput
from benchmarks.parts import ceilings
from benchmarks.parts.ceilings import Ceilings
from benchmarks.parts.cost import Cost
from benchmarks.parts.records import open_split, standardised
from benchmarks.parts.tables import digits, geometric_means, milliseconds, ratio_table
from imlenet_jax.models import make_config
from imlenet_jax.training.parallel import Devices
from tests.conftest import TINY


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs the command on tiny networks and short records; gives the exit status, the results and what was printed."""
    monkeypatch.setattr("benchmarks.parts.records.SECONDS", 2)
    monkeypatch.setattr(
        throughput, "config_for", lambda model, split: make_config(model, TINY[model] | {"length": 200})
    )
    monkeypatch.setattr(throughput, "TURN_SECONDS", 0.0)
    ceilings = Ceilings(flops_per_s=1e9, bytes_per_s=1e9, kernel_s=1e-6)
    monkeypatch.setattr(throughput, "measure_ceilings", lambda devices, dtypes: dict.fromkeys(dtypes, ceilings))

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "out"), "--turns", "2", *flags])
        with pytest.raises(SystemExit) as end:
            throughput.main()
        path = tmp_path / "out" / "throughput.json"
        return end.value.code, json.loads(path.read_text()) if path.exists() else None, capsys.readouterr()

    return run


def test_measures_every_case_and_writes_json_table_and_plot(command, tmp_path):
    status, results, printed = command("--models", "mousavi", "--batchsize", "4", "--devices", "2")
    assert status == 0, printed.err
    assert [(row["mode"], row["batchsize"]) for row in results["rows"]] == [("train", 4), ("infer", 4)]
    for row in results["rows"]:
        spread = row["step_s"]
        assert 0 < spread["first_quartile"] <= spread["median"] <= spread["third_quartile"]
        assert spread["count"] == 2
        assert row["records_per_s"] == pytest.approx(row["batchsize"] / spread["median"])
        assert row["records_per_s_with_input"] > 0
        assert row["devices"] == 2
        assert row["peak_bytes"] > 0
        assert "ratio" not in row
    assert (
        results["machine"]["command"]
        == "python -m benchmarks.throughput --out out --turns 2 --models mousavi --batchsize 4 --devices 2"
    )
    assert "| `mousavi` | train | float32 | 4 |" in (tmp_path / "out" / "throughput.md").read_text()
    assert (tmp_path / "out" / "throughput.png").read_bytes().startswith(b"\x89PNG")


def test_the_original_is_timed_beside(command, monkeypatch, tmp_path):
    class Twice:
        """An original that takes a known time."""

        framework = "torch 0.0"

        def __init__(self, python, repository, model, x, y):
            assert x.shape == (len(y), 200, 12) and x.dtype == np.float32
            assert y.shape == (len(x), 5)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def turn(self, mode, seconds):
            return [3.0]

    monkeypatch.setattr(throughput, "Original", Twice)
    monkeypatch.setattr(throughput, "check_reference", lambda *_: None)
    monkeypatch.setattr("benchmarks.parts.side_by_side.IDLE_SECONDS", 0)
    status, results, printed = command(
        "--models", "mousavi", "--batchsize", "4", "8", "--mode", "infer", "--devices", "1", "--reference", "clone"
    )
    assert status == 0, printed.err
    for row in results["rows"]:
        assert row["ratio"] == pytest.approx(3 / row["step_s"]["median"])
        assert row["highest_ratio"] == pytest.approx(3 / (row["flops"] / 1e9))
    assert results["rows"][1]["flops"] == 2 * results["rows"][0]["flops"] > 0
    assert "highest possible" in printed.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "mousavi,resnet"], "'resnet' is neither all nor one of imle_net"),
        (["--devices", "99"], "--devices 99: there are 8"),
        (["--batchsize", "3", "--devices", "2"], "--batchsize 3 does not divide over 2 devices"),
        (["--out", __file__], "a file is in its way"),
        (["--mode", "test"], "invalid choice: 'test'"),
        (["--reference", "/nowhere", "--devices", "1"], "--reference /nowhere has no models/IMLENet.py"),
    ],
)
def test_wrong_flags_are_refused(command, flags, message):
    status, results, printed = command(*flags)
    assert (status, results) == (2, None)
    assert message in printed.err


def test_a_plot_that_cannot_be_drawn_is_refused_at_once(command, monkeypatch):
    monkeypatch.setattr("benchmarks.parts.figures.find_spec", lambda name: None)
    status, _, printed = command("--devices", "1")
    assert status == 2
    assert "pip install 'imlenet_jax[test]'" in printed.err


def test_a_step_waits_for_the_longest_bound():
    ceilings = Ceilings(flops_per_s=100.0, bytes_per_s=10.0, kernel_s=0.01)
    rows = [throughput.bounds(Cost(*counts), ceilings, 4.0) for counts in [(200, 5, 1), (10, 20, 1), (10, 5, 300)]]
    assert [row["waits_for"] for row in rows] == ["compute", "memory", "dispatch"]
    assert [row["roofline_fraction"] for row in rows] == [0.5, 0.5, 0.125]
    assert rows[2]["least_s"]["dispatch"] == pytest.approx(3)
    assert rows[0]["flops_per_byte"] == 40


def test_ceilings_are_of_all_devices_together(monkeypatch):
    monkeypatch.setattr(ceilings, "MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr(ceilings, "COPY_BYTES", 4096)
    monkeypatch.setattr(
        ceilings, "best_run", lambda function, value: (2.0, (function(value) is not None) * 2 * ceilings.LOOP)
    )
    one, three = (ceilings.measure_ceilings(Devices(count), ["float32"])["float32"] for count in (1, 3))
    assert one == Ceilings(flops_per_s=64**3, bytes_per_s=4096, kernel_s=1 / ceilings.LOOP)
    assert three == Ceilings(flops_per_s=3 * 64**3, bytes_per_s=3 * 4096, kernel_s=1 / ceilings.LOOP)


def test_best_run_counts_the_kernels_of_a_loop():
    seconds, kernels = ceilings.best_run(
        lambda a: jax.lax.fori_loop(0, 100, lambda _, b: jnp.cos(b), a), jnp.ones((1, 2048))
    )
    assert 0 < seconds < float("inf")
    assert 100 <= kernels < 1000


def test_random_records_are_standardised_as_they_say(tmp_path):
    split = open_split(None, tmp_path, 16)
    x = standardised(split, throughput.first_batch(split, 16))
    assert x.shape == (16, 1000, 12) and x.dtype == np.float32
    assert abs(x.mean()) < 0.01
    assert x.std() == pytest.approx(1, abs=0.01)
    split.dataset.verify()


def test_geometric_mean_and_times_in_tables():
    spread = {"median": 0.1234, "first_quartile": 0.0042, "third_quartile": 12.3456}
    assert milliseconds(spread) == "123 (4.20, 12,346)"
    assert [digits(value) for value in (0.0412, 9.99, 10, 1234.5)] == ["0.0412", "9.99", "10.0", "1,234"]
    base = {"mode": "train", "dtype": "float32", "batchsize": 32, "step_s": spread, "original_step_s": spread}
    rows = [
        base | {"model": "a", "ratio": 0.5, "highest_ratio": 3.0},
        base | {"model": "b", "ratio": 8.0, "highest_ratio": 9.0},
    ]
    assert geometric_means(rows) == "Geometric mean of 2 networks, train, batch 32: **2.00**.\n"
    assert "| `b` | train | float32 | 32 | 123 (4.20, 12,346) | 123 (4.20, 12,346) | **8.00** | 9.00 |" in ratio_table(
        rows
    )
