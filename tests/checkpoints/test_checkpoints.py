"""Checkpoints: what is kept, what is read back, what is refused."""

import dataclasses
import json
import shutil
import threading

import jax
import numpy as np
import pytest

from imlenet_jax.checkpoints import reading
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import load_variables, read_meta
from imlenet_jax.classifier import load
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.models import create_model, make_config
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.saving import Checkpoints
from imlenet_jax.training.step import new_state
from tests.conftest import TINY, initial_variables


def _meta(model, config, **changes):
    values = {
        "model": model,
        "config": dataclasses.asdict(config),
        "classes": ["CD", "HYP", "MI", "NORM", "STTC"],
        "leads": [f"lead{i}" for i in range(12)],
        "sampling_rate": 100,
        "scaler": {"mean": 0.1, "std": 0.5},
    }
    return Meta(**(values | changes))


def _variables(model, config, seed=0):
    network = create_model(model, config)
    return initial_variables(network, seed)


def test_the_best_and_the_latest_are_kept_and_read_back(tiny_kinds, tmp_path):
    model, config = tiny_kinds
    saved = {}
    with Checkpoints(tmp_path / "run") as checkpoints:
        for epoch, score in enumerate([0.6, 0.9, 0.7, 0.8], 1):
            saved[epoch] = _variables(model, config, seed=epoch)
            meta = _meta(
                model, config, epoch=epoch, metrics={"val_macro_auc": score}, thresholds=[0.5, None, 0.1, 1, 0]
            )
            checkpoints.save(meta, new_state(saved[epoch], make_optimizer(model)))
    kept = sorted(int(path.name) for path in (tmp_path / "run").iterdir() if path.name.isdigit())
    assert kept == [2, 4]
    for which, epoch in (("best", 2), ("latest", 4)):
        meta, variables = load_variables(tmp_path / "run", which)
        assert meta.epoch == epoch and meta.network_config == config and meta.thresholds == [0.5, None, 0.1, 1, 0]
        jax.tree.map(np.testing.assert_array_equal, dict(variables), dict(saved[epoch]))


@pytest.fixture
def classifier_folder(tmp_path):
    config = make_config("imle_net", TINY["imle_net"])
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(_meta("imle_net", config), variables=_variables("imle_net", config))
    return tmp_path / "run"


def test_a_classifier_standardises_pads_and_attends(classifier_folder):
    classifier = load(classifier_folder)
    signals = np.random.default_rng(0).normal(0, 0.3, size=(5, 100, 12))
    probabilities = classifier.predict_proba(signals, batchsize=2)
    meta, variables = load_variables(classifier_folder)
    network = create_model("imle_net", meta.network_config)
    logits, aux = jax.jit(network.apply)(variables, ((signals - 0.1) / 0.5).astype(np.float32))
    np.testing.assert_allclose(probabilities, jax.nn.sigmoid(logits), rtol=1e-4, atol=1e-6)
    attention = classifier.attend(signals)
    for level, weights in aux.items():
        np.testing.assert_allclose(attention[level], weights, rtol=1e-4, atol=1e-6)
    assert classifier.classes == ("CD", "HYP", "MI", "NORM", "STTC") and classifier.sampling_rate == 100


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        (np.zeros((2, 12, 100)), "the last two axes are swapped"),
        (np.zeros((100, 12)), r"not \(n, 100, 12\)"),
        (np.zeros((0, 100, 12)), r"not \(n, 100, 12\)"),
        (np.full((1, 100, 12), np.nan), "record 0 of the signals holds NaN"),
        (np.full((1, 100, 12), "a"), "not numbers in mV"),
    ],
)
def test_wrong_signals_are_refused(classifier_folder, signals, sentence):
    with pytest.raises(UserError, match=sentence):
        load(classifier_folder).predict_proba(signals)


def test_only_imle_net_attends(tmp_path):
    config = make_config("mousavi", TINY["mousavi"])
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(_meta("mousavi", config), variables=_variables("mousavi", config))
    with pytest.raises(UserError, match="mousavi has no attention"):
        load(tmp_path / "run").attend(np.zeros((1, 100, 12)))


def test_missing_empty_and_damaged_folders_are_refused(classifier_folder, tmp_path):
    with pytest.raises(UserError, match="no such checkpoint folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no finished checkpoint"):
        load(tmp_path / "empty")
    for path in (classifier_folder / "0" / "variables").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match="is damaged"):
        load(classifier_folder)


def test_a_checkpoint_of_another_format_is_refused(classifier_folder):
    path = classifier_folder / "0" / "meta" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="of another format"):
        read_meta(classifier_folder)


def test_a_checkpoint_from_before_runs_could_continue_is_read(classifier_folder):
    path = classifier_folder / "0" / "meta" / "metadata"
    told = json.loads(path.read_text())
    for name in ("step", "history", "records", "checksums"):
        del told[name]
    path.write_text(json.dumps(told))
    meta, variables = load_variables(classifier_folder)
    assert meta.checksums == {} and meta.records is None
    jax.tree.map(np.testing.assert_array_equal, dict(variables), dict(_variables("imle_net", meta.network_config)))


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"no checkpoint can be written to .*file/run \(Not a directory\)"):
        Checkpoints(tmp_path / "file" / "run")


def test_a_failed_save_is_one_sentence_and_leaves_the_checkpoint_before_it(tmp_path, file_size_limit):
    config = make_config("mousavi", TINY["mousavi"])
    metas = [_meta("mousavi", config, epoch=epoch, metrics={"val_macro_auc": 0.5}) for epoch in (1, 2)]
    variables = _variables("mousavi", config)
    with pytest.raises(UserError, match="File too large"), Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(metas[0], variables=variables)
        checkpoints.wait()
        file_size_limit(2000)
        checkpoints.save(metas[1], variables=variables)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["1"]
    assert read_meta(tmp_path / "run")[0] == 1


def test_the_next_best_is_taken_where_the_best_is_damaged(tmp_path):
    config = make_config("mousavi", TINY["mousavi"])
    variables = [_variables("mousavi", config, seed) for seed in (1, 2)]
    with Checkpoints(tmp_path / "run") as checkpoints:
        for epoch, score in ((1, 0.9), (2, 0.6)):
            meta = _meta("mousavi", config, epoch=epoch, metrics={"val_macro_auc": score})
            checkpoints.save(meta, variables=variables[epoch - 1])
    assert load_variables(tmp_path / "run")[0].epoch == 1
    shutil.rmtree(tmp_path / "run" / "1" / "variables" / "d")
    with pytest.warns(DataWarning, match=r"run/1 is damaged \(.*; .*run/2 is used instead"):
        meta, found = load_variables(tmp_path / "run")
    assert meta.epoch == 2
    jax.tree.map(np.testing.assert_array_equal, dict(found), dict(variables[1]))


def test_leftovers_of_a_kill_are_removed_and_never_read(classifier_folder):
    left = [classifier_folder / "7.orbax-checkpoint-tmp", classifier_folder / ".deleted" / "3"]
    for folder in left:
        folder.mkdir(parents=True)
    assert read_meta(classifier_folder, "latest")[0] == 0
    with Checkpoints(classifier_folder):
        assert not any(folder.exists() for folder in left)


def test_a_reader_survives_a_training_that_replaces_checkpoints(tmp_path):
    model, config = "mousavi", make_config("mousavi", TINY["mousavi"])
    variables, optimizer = _variables(model, config), make_optimizer(model)
    written = threading.Event()

    def train():
        with Checkpoints(tmp_path / "run") as checkpoints:
            for epoch in range(1, 9):  # each is the best, and takes the place of the one before
                meta = _meta(model, config, epoch=epoch, metrics={"val_macro_auc": epoch / 100})
                checkpoints.save(meta, new_state(variables, optimizer))
                checkpoints.wait()
                written.set()

    training = threading.Thread(target=train)
    training.start()
    written.wait()
    epochs = []
    while training.is_alive():
        epochs.append(load_variables(tmp_path / "run", "best")[0].epoch)
        epochs.append(read_meta(tmp_path / "run", "latest")[0])
    training.join()
    assert epochs == sorted(epochs) and len(set(epochs)) > 1


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    model, config = "mousavi", make_config("mousavi", TINY["mousavi"])
    with Checkpoints(tmp_path / "run") as checkpoints:
        for epoch in (1, 2):
            meta = _meta(model, config, epoch=epoch, metrics={"val_macro_auc": 1 - epoch / 10})
            checkpoints.save(meta, variables=_variables(model, config, epoch))
    restore = reading.restore

    def replaced(path, *args):
        if path.name == "1":
            path.rename(path.with_name("taken away"))
        return restore(path, *args)

    monkeypatch.setattr(reading, "restore", replaced)
    assert load_variables(tmp_path / "run", "best")[0].epoch == 2
