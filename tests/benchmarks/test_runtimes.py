"""The benchmark of other runtimes, on one tiny network."""

import json

import pytest

from tests.calls import call
from tests.conftest import TINY


def test_three_programs_take_turns(monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    import benchmarks.runtimes
    from imlenet_jax.classifier import Classifier
    from tests.export.test_files import make

    assert TINY["mousavi"]["length"] == 100
    monkeypatch.setattr(benchmarks.runtimes, "fresh_weights", lambda model, folder: make(model))
    monkeypatch.setattr(
        benchmarks.runtimes,
        "load",
        lambda source, **flags: source if isinstance(source, Classifier) else benchmarks.latency.load(source, **flags),
    )
    flags = ["--models", "mousavi", "--batchsize", 1, 3, "--repeats", 2, "--out", tmp_path / "out.json"]
    assert call(monkeypatch, benchmarks.runtimes, *flags) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["batchsize"] for row in rows] == [1, 3]
    for row in rows:
        for name in ("stablehlo", "onnxruntime"):
            assert row["ratio"][name] == row["seconds"]["ours"]["median"] / row["seconds"][name]["median"]
            assert row["largest_difference"][name]["probabilities"] < 1e-5
    assert "records/s; stablehlo" in capsys.readouterr().out
