"""The inference command as users call it."""

import csv
import functools
import json
import sys

import numpy as np
import pytest

import experiments.inference
import experiments.task
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.ecg import read_ecg
from imlenet_jax.data.ptbxl import LEADS, SUPERCLASSES
from imlenet_jax.data.sources import read_source
from imlenet_jax.data.tasks import SUB, Task
from imlenet_jax.export.files import describe, to_safetensors
from imlenet_jax.export.verify import synthetic_ecgs
from imlenet_jax.models import create_model, make_config
from imlenet_jax.training.saving import Checkpoints
from tests.conftest import initial_variables

SMALL = {"filters": [4, 4], "blocks_per_stage": 1, "lstm_units": 4, "attention_dim": 4}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with an untrained imle_net and its sub-diagnosis."""
    folder = tmp_path_factory.mktemp("inference") / "checkpoints"
    for name, thresholds, task in (
        ("imle_net", [0.1, 0.9, 0.1, 0.9, None], Task("superclass", SUPERCLASSES)),
        ("imle_net_sub", None, SUB),
        ("swapped/imle_net", None, SUB),
        ("swapped/imle_net_sub", None, Task("superclass", SUPERCLASSES)),
    ):
        values = SMALL | {"classes": len(task.classes)}
        config = make_config("imle_net", values)
        variables = initial_variables(create_model("imle_net", config))
        scaler = {"mean": 0.0, "std": 0.25}
        meta = Meta("imle_net", values, list(task.classes), list(LEADS), 100, scaler, thresholds, task=task.name)
        with Checkpoints(folder / name) as saved:
            saved.save(meta, variables=variables)
    return folder


load_once = functools.cache(load)  # what is compiled for one test serves the next


@pytest.fixture
def call(tmp_path, checkpoints, monkeypatch, capsys):
    """Run the command in an empty folder: exit status, what it said on stdout, and on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments.task, "load", load_once)

    def run(*flags):
        flags = ["--checkpoint_dir", checkpoints, *flags]
        monkeypatch.setattr(sys, "argv", ["inference", *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            experiments.inference.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def records(synthetic_shards):
    """The folder of 80 synthetic WFDB records."""
    return synthetic_shards.parent / "records100" / "00000"


def report(folder):
    return json.loads((folder / "explanation.json").read_text())


def test_one_record_end_to_end(call, records, checkpoints, tmp_path):
    status, out, _ = call("--dir", records / "00001_lr")
    assert status == 0
    results = tmp_path / "results" / "00001_lr"
    names = {"explanation.json", "visualization.png", "visualization.svg", "channel_visualization.html"}
    assert {path.name for path in results.iterdir()} == names
    (ecg,) = read_ecg(records / "00001_lr.hea")
    classifier = load_once(checkpoints / "imle_net", "best")
    expected = classifier.predict_proba(ecg.signal_mv[None])[0]
    answer = report(results)
    np.testing.assert_allclose(
        [answer["classes"][name]["probability"] for name in SUPERCLASSES], expected, rtol=1e-5, atol=1e-7
    )
    decisions = [answer["classes"][name]["predicted"] for name in SUPERCLASSES]
    assert decisions == [bool(expected[0] >= 0.1), bool(expected[1] >= 0.9), bool(expected[2] >= 0.1), False, None]
    channel = classifier.attend(ecg.signal_mv[None])["channel"][0]
    assert answer["most_attended_leads"] == [LEADS[place] for place in np.argsort(-channel)[:3]]
    assert answer["source"] == str((records / "00001_lr.hea").resolve())
    assert f"{expected[0]:.3f}  yes  (threshold 0.100)" in out
    assert f"most attended leads: {answer['most_attended_leads'][0]} " in out
    assert "For research, not for diagnosis." in out
    for path in results.iterdir():
        if path.suffix != ".png":
            assert "For research, not for diagnosis." in path.read_text()


def test_an_exported_file_answers_as_its_checkpoint_does(call, records, checkpoints, tmp_path):
    classifier = load_once(checkpoints / "imle_net", "best")
    content, _ = to_safetensors(classifier, describe(classifier, {}), synthetic_ecgs(classifier))
    (tmp_path / "network.safetensors").write_bytes(content)
    # Whatever --model says: the file knows what it is.
    flags = ("--checkpoint_dir", tmp_path / "network.safetensors", "--model", "mousavi", "--map", "attention")
    status, out, _ = call(*flags, "--dir", records / "00001_lr")
    assert status == 0 and "network.safetensors: epoch" in out
    found = report(tmp_path / "results" / "00001_lr")
    (ecg,) = read_ecg(records / "00001_lr.hea")
    expected = classifier.predict_proba(ecg.signal_mv[None])[0]
    probabilities = [found["classes"][name]["probability"] for name in SUPERCLASSES]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-7)


def test_a_folder_is_compiled_once_and_done_whole(call, records, monkeypatch, tmp_path):
    compiled = []
    original = Classifier._run
    monkeypatch.setattr(
        Classifier, "_run", lambda self, *a: (original(self, *a), compiled.append(self._apply._cache_size()))[0]
    )
    for row in range(1, 8):
        for suffix in (".hea", ".dat"):
            (tmp_path / f"{row:05d}_lr{suffix}").symlink_to(records / f"{row:05d}_lr{suffix}")
    status, out, _ = call("--dir", ".", "--batchsize", 3, "--figures", "False")
    assert status == 0
    assert len(list((tmp_path / "results").iterdir())) == 8  # with the table of all
    with open(tmp_path / "results" / "predictions.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"{row:05d}_lr" for row in range(1, 8)]
    for name, row in rows.items():
        answer = report(tmp_path / "results" / name)["classes"]
        for of, entry in answer.items():
            assert abs(float(row[f"prob_{of}"]) - entry["probability"]) < 1e-6
            assert row[f"predicted_{of}"] == ("" if entry["predicted"] is None else str(int(entry["predicted"])))
    assert len(compiled) == 6 and len(set(compiled)) == 1  # three batches, asked for prediction and for attention
    assert out.count("most attended leads") == 7


def test_what_is_wrong_is_said_first_and_the_others_go_on(call, records, tmp_path):
    source = read_source(records / "00002_lr.hea")
    signals = {"gap": source.signal.copy(), "unit": 1000 * source.signal, "short": source.signal[:900]}
    signals["gap"][7, 3] = np.nan
    for name, signal in signals.items():
        np.save(tmp_path / f"{name}.npy", signal)
    np.save(tmp_path / "object.npy", np.array([None]), allow_pickle=True)
    flags = ["--sampling_rate", 100, "--leads", ",".join(LEADS), "--figures", "False"]
    names = ["gap.npy", "unit.npy", "short.npy", "object.npy"]
    status, out, err = call("--dir", *names, "gone/../unit.npy", *flags)
    assert status == 2 and "there is no" in err
    status, out, err = call("--dir", *names, records / "00003_lr", *flags)
    assert status == 2
    (error,) = [line for line in err.splitlines() if line.startswith("error")]
    assert error == "error: no prediction for gap (gap.npy), short.npy, object.npy, for the reasons given above"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["00003_lr", "predictions.csv", "unit"]
    with open(tmp_path / "results" / "predictions.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["gap (gap.npy)", "short.npy", "object.npy", "unit", "00003_lr"]
    assert rows["short.npy"]["prob_MI"] == "" and "lasts 9 s, less than 10 s" in rows["short.npy"]["notes"]
    first_probability = out.index("(threshold")
    for sentence in (
        "gap: implausible: samples are missing in aVR (1 samples)",
        "unit: implausible: the leads typically deflect by",
        "unusable: short.npy lasts 9 s, less than 10 s",
        "unusable: object.npy is not a .npy file of numbers",
    ):
        assert out.index(sentence) < first_probability
    assert report(tmp_path / "results" / "unit")["notes"][0].startswith("implausible: the leads typically deflect by")
    status, out, err = call("--dir", "short.npy", *flags, "--short", "pad")
    assert status == 0 and "earlier predictions moved to results/predictions.csv.old-1" in out
    assert report(tmp_path / "results" / "short")["notes"] == ["9 s were padded to 10 s"]


def test_records_of_one_name_do_not_replace_each_other(call, records, tmp_path):
    for folder, row in (("a", 4), ("b", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rec.hea").write_text((records / f"{row:05d}_lr.hea").read_text())
        (tmp_path / folder / f"{row:05d}_lr.dat").symlink_to(records / f"{row:05d}_lr.dat")
    for _ in range(2):  # again: the same folders
        status, out, _ = call("--dir", "a/rec", "b/rec", "--figures", "False")
        assert status == 0 and "results/rec-2" in out
    assert sorted(path.name for path in (tmp_path / "results").iterdir() if path.is_dir()) == ["rec", "rec-2"]
    assert report(tmp_path / "results" / "rec")["source"].endswith("a/rec.hea")
    assert report(tmp_path / "results" / "rec-2")["source"].endswith("b/rec.hea")


def test_long_recordings_give_one_answer_per_window(call, records, tmp_path):
    signal = np.concatenate([read_source(records / f"0000{row}_lr.hea").signal for row in (6, 7)])
    np.savetxt(tmp_path / "two.csv", signal, delimiter=",", header=",".join(LEADS), comments="")
    flags = ["--figures", "False", "--sub", "True", "--out", "o"]
    status, out, _ = call("--dir", "two.csv", "--sampling_rate", 100, *flags)
    assert status == 0 and "the most probable class is predicted" in out and "threshold" not in out
    assert report(tmp_path / "o" / "two[0-10s]")["checkpoint"].endswith("imle_net_sub")
    call("--dir", records / "00007_lr", *flags)
    classes = [report(tmp_path / "o" / name)["classes"] for name in ("two[10-20s]", "00007_lr")]
    parts = [[entry["probability"] for entry in found.values()] for found in classes]
    np.testing.assert_allclose(*parts, rtol=1e-4)
    assert list(classes[0]) == ["ASMI", "IMI", "NORM"] and sum(parts[0]) == pytest.approx(1)
    assert [entry["predicted"] for entry in classes[0].values()] == [part == max(parts[0]) for part in parts[0]]


@pytest.mark.parametrize("sub", ["True", "False"])
def test_a_checkpoint_for_the_other_task_is_refused(call, records, checkpoints, sub):
    status, _, err = call("--dir", records / "00001_lr", "--checkpoint_dir", checkpoints / "swapped", "--sub", sub)
    assert (
        status == 2 and "the checkpoint is for the task '" in err and "change --task, --sub or --checkpoint_dir" in err
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "the following arguments are required: --dir"),
        (["--dir", "nothing"], "--dir nothing: there is no nothing.hea"),
        (["--dir", "{}", "--model", "cnn"], "--model 'cnn' is unknown"),
        (["--dir", "{}", "--model", "mousavi"], "mousavi: no such checkpoint folder"),
        (["--dir", "{}", "--unit", "mV"], "--sampling_rate, --leads and --unit are for .csv, .csv.gz and .npy files"),
        (["--dir", "{}", "--unit", "Pa"], "'Pa' is not mV, uV or V"),
        (["--dir", "{}", "--lead_map", "MLII"], "is not a list of NAME=LEAD"),
        (["--dir", "{}", "--lead_map", "MLII=V9"], "is not a list of NAME=LEAD"),
        (["--dir", "{}", "--out", "file/below"], "--out file/below is, or lies below, a file"),
        (["--dir", "{}", "--batchsize", "0"], "not a whole number of at least 1"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(call, records, tmp_path, flags, sentence):
    (tmp_path / "file").touch()
    status, _, err = call(*[flag.format(records / "00001_lr") for flag in flags])
    assert status == 2 and sentence in err and "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_real_records_at_500_hz_give_the_answers_of_their_100_hz_twins(call, ptbxl_folder, tmp_path):
    stems = [
        ptbxl_folder / f"records{rate}/00000/{row:05d}_{end}"
        for row in range(1, 6)
        for rate, end in ((100, "lr"), (500, "hr"))
    ]
    status, _, _ = call("--dir", *stems, "--figures", "False")
    assert status == 0

    def probabilities(end):
        folders = [tmp_path / "results" / f"{row:05d}_{end}" for row in range(1, 6)]
        return np.array([[c["probability"] for c in report(folder)["classes"].values()] for folder in folders])

    low, high = probabilities("lr"), probabilities("hr")
    assert np.abs(low - high).mean() < min(0.02, 0.2 * np.abs(low - np.roll(low, 1, axis=0)).mean())
