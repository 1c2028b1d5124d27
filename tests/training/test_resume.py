"""A run that is stopped anywhere and goes on ends as one that was never stopped; anything else is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from benchmarks.faults import read_events
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import load_meta, read_meta, restore, saved
from imlenet_jax.data.loader import select
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.tasks import SUB
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.models import make_config
from imlenet_jax.training.logs import RunLog
from imlenet_jax.training.loop import fit
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.resume import Selection, command_to_continue, differing_flags, find_start
from imlenet_jax.training.saving import UNFINISHED, Checkpoints
from imlenet_jax.training.stopping import NotFinite, Stopped, Watch

# Has BatchNorm and dropout.
CONFIG = {"kernel_size": 4, "filters": 4, "blocks": 2, "widen_every": 2, "dropout": 0.2}
FLAGS = {"epochs": 3, "lr": 0.001, "batchsize": 8, "train_folds": [1, 2], "data_dir": "data", "resume": "auto"}


class StopAfter(Watch):
    """Saves and stops after so many steps of the run."""

    def __init__(self, step):
        super().__init__()
        self._wanted = step

    def after(self, step):
        return step == self._wanted, step == self._wanted


class Run:
    """Trainings of one small network, each in a folder of its own."""

    def __init__(self, shards, folder, task=None):
        dataset = open_shards(shards)
        task = task or dataset.task()
        self.folder = folder
        self.splits = [select(dataset, folds, "training", task=task) for folds in (tuple(range(1, 8)), (8, 9, 10))]
        self.steps = len(self.splits[0]) // 8
        self.meta = Meta(
            model="rajpurkar",
            config=dataclasses.asdict(make_config("rajpurkar", CONFIG | {"classes": len(task.classes)})),
            classes=list(task.classes),
            leads=list(dataset.leads),
            sampling_rate=100,
            scaler=dict(zip(("mean", "std"), dataset.scaler, strict=True)),
            data_fingerprint="of these records",
            training=FLAGS,
            task=task.name,
        )

    def __call__(self, name, watch=None, devices=1, recipe=None):
        """Train, or go on."""
        start = find_start(self.folder / name, self.meta)
        history = start.meta.history if start else []
        with (
            RunLog(self.folder, name, {}, history=history) as log,
            Checkpoints(self.folder / name) as checkpoints,
        ):
            recipe = recipe or Recipe(batchsize=8, epochs=3)
            return fit(self.meta, *self.splits, recipe, Devices(devices), checkpoints, log, start, watch)

    def results(self, name):
        """Arrays of the last epoch; history as the checkpoint, the log and TensorBoard tell it."""
        newest = saved(self.folder / name)[0]
        meta = load_meta(newest)
        arrays = jax.tree.leaves([restore(newest, meta, item) for item in ("variables", "optimizer")])
        logged = json.loads((self.folder / f"{name}_train_logs.json").read_text())
        return arrays, [meta.history, logged, sorted(read_events(self.folder / f"{name}_tensorboard"))]


@pytest.fixture(scope="module")
def run(synthetic_shards, tmp_path_factory):
    run = Run(synthetic_shards, tmp_path_factory.mktemp("runs"))
    run("whole")
    return run


@pytest.fixture(scope="module")
def stopped(run):
    """A run stopped in its second epoch, to be copied."""
    with pytest.raises(Stopped):
        run("stopped", StopAfter(run.steps + 2))
    return run.folder / "stopped"


def _copy(stopped, name):
    return shutil.copytree(stopped, stopped.with_name(name))


def test_a_run_stopped_in_an_epoch_goes_on_to_the_bit(run, stopped):
    assert [path.name for path in saved(stopped)] == ["1"]
    (middle,) = saved(stopped / UNFINISHED)
    meta = load_meta(middle)
    assert (meta.epoch, meta.step, len(meta.history)) == (1, 2, 1)
    assert restore(middle, meta, "unfinished")["logits"].shape == (16, 5)
    assert read_meta(stopped, "latest")[0] == 1  # never a checkpoint within an epoch

    _copy(stopped, "again")
    with pytest.raises(Stopped):
        run("again", StopAfter(2 * run.steps))  # after the last step of an epoch, before its validation
    best = run("again")
    assert not (run.folder / "again" / UNFINISHED).exists()
    (arrays, told), (expected, expected_told) = run.results("again"), run.results("whole")
    for found, array in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(found, array)
    assert told == expected_told
    assert best == load_meta(run.folder / "whole" / str(best["epoch"])).metrics
    rates = json.loads((run.folder / "again_train_times.json").read_text())
    assert [row["epoch"] for row in rates][-2:] == [2, 3]


def test_a_sub_diagnosis_goes_on_too(synthetic_shards, tmp_path):  # its optimizer is another one
    run = Run(synthetic_shards, tmp_path, SUB)
    _assert_a_stop_changes_nothing(run, Recipe(batchsize=8, epochs=2))


def _assert_a_stop_changes_nothing(run, recipe):
    run("whole", recipe=recipe)
    with pytest.raises(Stopped):
        run("stopped", StopAfter(run.steps + 1), recipe=recipe)
    run("stopped", recipe=recipe)
    for found, array in zip(run.results("stopped")[0], run.results("whole")[0], strict=True):
        np.testing.assert_array_equal(found, array)


def test_random_crops_on_one_cycle_go_on_to_the_bit(synthetic_shards, tmp_path):
    run = Run(synthetic_shards, tmp_path)
    flags = FLAGS | {"schedule": "onecycle", "weight_decay": 0.01, "crop": 2.5}
    run.meta = dataclasses.replace(run.meta, config=run.meta.config | {"length": 250}, samples=1000, training=flags)
    recipe = Recipe(batchsize=8, epochs=2, schedule="onecycle", weight_decay=0.01)
    _assert_a_stop_changes_nothing(run, recipe)
    run("resident", recipe=dataclasses.replace(recipe, data_on_device=True, steps_per_call=2))
    losses = [[row["train_loss"] for row in run.results(name)[1][0]] for name in ("resident", "whole")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)  # another crop would be another loss
    with pytest.raises(UserError, match="--schedule onecycle is one course of the whole run"):
        run("frozen", recipe=dataclasses.replace(recipe, freeze_epochs=1))


def test_on_other_devices_it_goes_on_within_rounding(run, stopped):
    _copy(stopped, "on_four")
    run("on_four", devices=4)
    (arrays, told), (expected, expected_told) = run.results("on_four"), run.results("whole")
    # A weight whose gradient is all but zero goes either way, by up to the learning rate of 1e-3 a step.
    for found, array in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(found, array, rtol=2e-3, atol=5e-4)
    losses = [[row["train_loss"] for row in history] for history in (told[0], expected_told[0])]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def _damage(folder):
    for path in (folder / "variables").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])


def _flip(folder):
    largest = max((folder / "optimizer").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def _undescribe(folder):
    (folder / "meta" / "metadata").write_text("{")


@pytest.mark.parametrize(
    ("damage", "reason"), [(_damage, "is damaged"), (_flip, "is damaged"), (_undescribe, "no read")]
)
def test_a_damaged_checkpoint_is_passed_over_and_put_aside(run, stopped, damage, reason):
    folder = _copy(stopped, damage.__name__)
    (middle,) = saved(folder / UNFINISHED)
    damage(middle)
    with pytest.warns(DataWarning, match=f"{middle.name}.*{reason}.*{folder}/1 is used instead"):
        start = find_start(folder, run.meta)
    assert (start.meta.epoch, start.unfinished) == (1, None)
    assert middle.with_name(f"{middle.name}.old-1").is_dir() and not middle.exists()
    damage(folder / "1")
    with pytest.raises(UserError, match=f"{reason}.*--resume False starts anew"):
        find_start(folder, run.meta)


def test_arrays_of_another_shape_are_damage(run):
    epoch = saved(run.folder / "whole")[0]
    meta = load_meta(epoch)
    shapes = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((*array.shape, 1), array.dtype), restore(epoch, meta, "variables")
    )
    with pytest.raises(UserError, match=r"an array is \(4,\) where its network has \(4, 1\)"):
        restore(epoch, meta, "variables", shapes)


def test_a_finished_run_goes_on_only_for_more_epochs(run):
    start = find_start(run.folder / "whole", run.meta)
    assert start.finished(epochs=3, patience=20) and not start.finished(epochs=4, patience=20)
    assert start.finished(epochs=4, patience=1) == Selection(1, start.meta.history).over


def test_a_run_without_patience_left_does_not_go_on(run, monkeypatch):
    shutil.copytree(run.folder / "whole", run.folder / "patient")
    monkeypatch.setattr(Selection, "over", property(lambda self: True))
    best = run("patient", recipe=Recipe(batchsize=8, epochs=5))
    assert load_meta(saved(run.folder / "patient")[0]).epoch == 3 and best["epoch"] <= 3


@pytest.mark.parametrize(
    ("flags", "changes", "sentence"),
    [
        ({"lr": 0.1, "batchsize": 16}, {}, "--lr was 0.001, is 0.1; --batchsize was 8, is 16"),
        ({"epochs": 2}, {}, "--epochs was 3, is 2"),
        ({"epochs": 4, "schedule": "onecycle"}, {}, "--epochs was 3, is 4"),
        ({}, {"config": {"filters": 8}}, '--config was {"filters": 4}, is {"filters": 8}'),
        ({"data_dir": "other"}, {"data_fingerprint": "others"}, "--data_dir was data, is other, with other records"),
        ({"data_dir": "other", "epochs": 9, "log_dir": "x", "num_devices": 4, "resume": True}, {}, ""),
        ({"init_from": None, "weight_decay": None, "precision": "default"}, {}, ""),  # which `fit` does not name
        (
            {"init_from": "base", "precision": "highest"},
            {},
            '--init_from was null, is "base"; --precision was "default", is "highest"',
        ),
    ],
)
def test_flags_that_make_another_run_are_named(flags, changes, sentence):
    same = FLAGS | {name: value for name, value in flags.items() if name == "schedule"}
    old = Meta("rajpurkar", {"filters": 4}, [], [], 100, {}, data_fingerprint="of these records", training=same)
    new = dataclasses.replace(old, training=FLAGS | flags, **changes)
    assert "; ".join(differing_flags(old, new)) == sentence


def test_what_cannot_be_continued_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"--resume True: .* holds no checkpoint to continue"):
        find_start(tmp_path, run.meta, True)
    assert find_start(tmp_path, run.meta) is None
    assert find_start(run.folder / "whole", run.meta, False) is None
    other = dataclasses.replace(run.meta, training=FLAGS | {"lr": 0.1})
    with pytest.raises(UserError, match=r"holds a run with other flags \(--lr was 0.001, is 0.1\): give the same"):
        find_start(run.folder / "whole", other)
    for changes, sentence in (
        ({"training": {"converted_from": "w.h5"}}, "is a converted network, not a run"),
        ({"history": []}, "could not"),
    ):
        folder = shutil.copytree(run.folder / "whole", tmp_path / next(iter(changes)))
        for path in saved(folder):
            told = path / "meta" / "metadata"
            told.write_text(json.dumps(json.loads(told.read_text()) | changes))
        with pytest.raises(UserError, match=sentence):
            find_start(folder, run.meta)


def test_a_loss_that_is_no_number_keeps_what_was_good(run):
    with pytest.raises(NotFinite, match=r"in epoch 1, step \d") as error:
        run("infinite", recipe=Recipe(batchsize=8, epochs=3, lr=1e30))
    assert len(error.value.rows) == 8
    assert not saved(run.folder / "infinite")


def test_the_operation_that_makes_a_nan_is_named(run):
    with (
        jax.debug_nans(True),
        pytest.raises(NotFinite, match=r"invalid value \(nan\) .* \(\w+.py, line \d+\) in epoch 1"),
    ):
        run("debugged", recipe=Recipe(batchsize=8, epochs=1, lr=1e30))


def test_patience_follows_from_the_history():
    rows = [{"epoch": i, "val_macro_auc": score} for i, score in enumerate([0.5, 0.6, 0.60005, 0.6], 1)]
    selection = Selection(2, rows[:3])
    assert not selection.over and selection.best["epoch"] == 3  # the better one, though it renews no patience
    selection.add(rows[3])
    assert selection.over and selection.best["epoch"] == 3


def test_the_command_that_continues_does_not_start_anew():
    command = ["--resume", "False", "--lr", "0.1", "--resume=False"]
    assert command_to_continue("experiments.train", command)[2:] == ["experiments.train", "--lr", "0.1"]
