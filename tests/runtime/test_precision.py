"""The precision of multiplications: asked for in training, kept in the checkpoint, and used by whoever loads it."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import pytest

import experiments.test
import experiments.train
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import read_meta
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.errors import UserError
from imlenet_jax.models import create_model, make_config
from imlenet_jax.runtime.precision import precision, set_precision
from imlenet_jax.training.saving import Checkpoints
from tests.conftest import TINY, initial_variables

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


@pytest.fixture(autouse=True)
def as_before():
    yield
    set_precision("default")


@pytest.fixture(scope="module")
def trained():
    """A description with `--precision highest`, and variables."""
    config = make_config("mousavi", TINY["mousavi"])
    variables = initial_variables(create_model("mousavi", config))
    classes, scaler = ["CD", "HYP", "MI", "NORM", "STTC"], {"mean": 0.0, "std": 0.2}
    meta = Meta("mousavi", TINY["mousavi"], classes, LEADS, 100, scaler, training={"precision": "highest"})
    return meta, variables


def _levels(function, *arguments):
    """The precisions that a function multiplies with: `HIGHEST` or `DEFAULT`."""
    text = jax.jit(function).lower(*arguments).as_text()
    return {level for level in ("HIGHEST", "DEFAULT") if level in text}


@pytest.mark.parametrize(
    ("kept", "asked", "used"),
    [("highest", None, "HIGHEST"), ("highest", "default", None), (None, None, None), (None, "highest", "HIGHEST")],
)
def test_a_classifier_multiplies_as_it_was_trained_unless_told_otherwise(trained, tmp_path, kept, asked, used):
    meta, variables = trained
    meta = dataclasses.replace(meta, training={"precision": kept} if kept else {})
    with Checkpoints(tmp_path) as saved:
        saved.save(meta, variables=variables)
    classifier = load(tmp_path, precision=asked)
    signals = jnp.zeros((2, 100, 12))
    for levels in (
        _levels(classifier.logits, signals),
        _levels(lambda x: classifier._apply(classifier.variables, x), signals),
        _levels(jax.grad(lambda x: classifier.logits(x).sum()), signals),
    ):
        assert ("HIGHEST" in levels) == (used == "HIGHEST")


def test_every_multiplication_is_meant(trained):
    classifier = Classifier(*trained)
    text = str(jax.make_jaxpr(classifier.logits)(jnp.zeros((2, 100, 12))))
    assert "Precision.HIGHEST" in text and "precision=None" not in text


def test_what_jax_was_told_is_left_where_nothing_is_asked():
    with jax.default_matmul_precision("highest"), precision("default"):
        assert jax.config.jax_default_matmul_precision == "highest"


def test_a_precision_that_there_is_not_is_refused(trained, tmp_path):
    meta, variables = trained
    with pytest.raises(UserError, match="precision is 'exact': choose one of default, highest"):
        load(tmp_path, precision="exact")
    with Checkpoints(tmp_path) as saved:
        saved.save(dataclasses.replace(meta, training={"precision": ["x"]}), variables=variables)
    with pytest.raises(UserError, match=r"another shape .its 'precision' cannot be"):
        load(tmp_path)


def test_training_keeps_it_and_testing_uses_it(tmp_path, synthetic_shards, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--model", "mousavi", "--data_dir", str(synthetic_shards), "--batchsize", "8"]
    config = json.dumps({"filters": [4, 4], "lstm_units": 4, "hidden": 8})

    def call(command, *flags):
        monkeypatch.setattr(sys, "argv", ["x", *data, *flags])
        with pytest.raises(SystemExit) as ended:
            command.main()
        assert ended.value.code == 0
        return jax.config.jax_default_matmul_precision

    assert call(experiments.train, "--epochs", "1", "--config", config, "--precision", "highest") == "highest"
    assert read_meta(tmp_path / "checkpoints/mousavi")[1].precision == "highest"
    set_precision("default")
    assert call(experiments.test) == "highest"
    assert json.loads((tmp_path / "logs/mousavi_test_logs.json").read_text())["precision"] == "highest"
    assert call(experiments.test, "--precision", "default") is None
