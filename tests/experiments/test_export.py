"""The export command as users call it."""

import json
import sys

import numpy as np
import pytest

import experiments.export
import experiments.test
from experiments.results import read_tests
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import read_meta
from imlenet_jax.classifier import load
from imlenet_jax.data.ptbxl import LEADS, SUPERCLASSES
from imlenet_jax.models import create_model, make_config
from imlenet_jax.training.saving import Checkpoints
from tests.calls import call as run
from tests.conftest import initial_variables

SMALL = {"filters": [4], "lstm_units": 4, "hidden": 8}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with an untrained mousavi."""
    folder = tmp_path_factory.mktemp("export") / "checkpoints"
    variables = initial_variables(create_model("mousavi", make_config("mousavi", SMALL)))
    meta = Meta("mousavi", SMALL, list(SUPERCLASSES), list(LEADS), 100, {"mean": 0.0, "std": 0.25}, [0.5] * 5)
    with Checkpoints(folder / "mousavi") as saved:
        saved.save(meta, variables=variables)
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch, capsys, checkpoints):
    """Run in an empty folder: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "mousavi", "--checkpoint_dir", checkpoints)
    return lambda *more, command=experiments.export: (run(monkeypatch, command, *flags, *more), *capsys.readouterr())


def test_a_file_with_what_the_tests_have_found(call, checkpoints, tmp_path, synthetic_shards):
    data = ("--data_dir", synthetic_shards)
    status, *said = call(*data, "--coverage", 0.5, "--temperature", "True", command=experiments.test)
    assert status == 0, said
    meta = read_meta(checkpoints / "mousavi")[1]
    assert sorted(read_tests(tmp_path / "logs", "mousavi", meta)) == ["logs", "sets"]
    assert "| temperature |" in (checkpoints / "mousavi" / "card.md").read_text()

    status, out, _ = call("--format", "stablehlo", "--out", tmp_path / "new" / "m.stablehlo", *data)
    assert status == 0
    assert "checked on 64 records of fold 10 of" in out and "found of its tests in logs: logs, sets" in out
    found = load(tmp_path / "new" / "m.stablehlo")
    ecgs = np.random.default_rng(0).normal(0, 0.3, (3, 1000, 12))
    np.testing.assert_allclose(found.predict_proba(ecgs), load(checkpoints / "mousavi").predict_proba(ecgs), atol=1e-6)

    content = json.loads((tmp_path / "logs/mousavi_test_logs.json").read_text())
    (tmp_path / "logs/mousavi_test_logs.json").write_text(json.dumps(content | {"folds": [9]}))
    assert sorted(read_tests(tmp_path / "logs", "mousavi", meta)) == ["logs"]  # sets are of other records
    (tmp_path / "logs/mousavi_test_logs.json").write_text(json.dumps(content | {"checksum": 1}))
    assert sorted(read_tests(tmp_path / "logs", "mousavi", meta)) == ["sets"]  # those of other weights are not taken


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--format", "tflite", "--out", "x"], "argument --format: invalid choice: 'tflite'"),
        (["--format", "onnx"], "the following arguments are required: --out"),
        (["--format", "safetensors", "--out", "."], "--out . is a folder: name a file in it"),
        (["--format", "safetensors", "--out", "x", "--checkpoint_dir", "none"], "no such checkpoint folder"),
        (["--format", "safetensors", "--out", "x", "--model", "cnn"], "--model 'cnn' is unknown"),
        (["--format", "safetensors", "--out", "x", "--data_dir", "none"], "--data_dir none: no such folder"),
    ],
)
def test_mistakes_are_one_sentence(call, tmp_path, flags, sentence):
    status, _, error = call(*flags)
    assert status == 2 and sentence in error and "Traceback" not in error
    assert not (tmp_path / "x").exists()


def test_without_the_extra_it_is_named(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    status, _, error = call("--format", "onnx", "--out", "x.onnx")
    assert status == 2 and "--format onnx needs jax2onnx: pip install 'imlenet_jax[onnx]'" in error
