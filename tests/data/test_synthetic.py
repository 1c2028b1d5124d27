"""The synthetic data set as a folder: bytes, WFDB, folds, labels, truth, and what it refuses."""

import ast
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.synthesize import main
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.synthetic import STATEMENTS, patients, write_dataset
from imlenet_jax.errors import UserError

RECORDS = 120

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    import wfdb


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "set"
    write_dataset(out, RECORDS, 3, progress=False)
    return out


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def database(folder):
    return pd.read_csv(folder / "ptbxl_database.csv", index_col="ecg_id")


def test_same_seed_same_bytes_another_seed_others(folder, tmp_path):
    write_dataset(tmp_path / "again", RECORDS, 3, progress=False)
    write_dataset(tmp_path / "other", 5, 4, progress=False)
    assert contents(tmp_path / "again") == contents(folder)
    name = "records100/00000/00001_lr.dat"
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


def test_a_record_does_not_depend_on_how_many_follow(folder, tmp_path):
    write_dataset(tmp_path / "few", 12, 3, progress=False)
    few, many = contents(tmp_path / "few"), contents(folder)
    records = [name for name in few if name.startswith("records100")]
    assert len(records) == 24
    assert all(few[name] == many[name] for name in records)
    rows = (tmp_path / "few" / "ptbxl_database.csv").read_text().splitlines()
    assert (folder / "ptbxl_database.csv").read_text().splitlines()[: len(rows)] == rows


def test_wfdb_reads_it_as_written(folder, database):
    for name in database.filename_lr[:20]:
        stem = folder / name
        record = wfdb.rdrecord(str(stem), physical=False)
        raw = np.fromfile(stem.with_suffix(".dat"), "<i2").reshape(1000, 12)
        assert (record.fs, record.sig_len, record.n_sig) == (100, 1000, 12)
        assert record.sig_name == [lead.upper() for lead in LEADS]
        np.testing.assert_array_equal(record.d_signal, raw)
        assert record.calc_checksum() == [value % 65536 for value in record.checksum]
        assert record.init_value == raw[0].tolist()
        assert record.adc_gain == [1000.0] * 12 and record.baseline == [0] * 12
        assert np.abs(raw).max() < 8000
        assert np.abs(raw[:, 0].astype(int) + raw[:, 2] - raw[:, 1]).max() <= 1


def test_patients_stay_in_one_fold_and_some_come_twice(database):
    per_patient = database.groupby("patient_id")
    assert (per_patient.strat_fold.nunique() == 1).all()
    assert sorted(database.strat_fold.unique()) == list(range(1, 11))
    assert per_patient.size().max() == 2
    assert (per_patient.scp_codes.first().map(len) > 0).all()


def test_every_fold_has_every_superclass():
    found = {}
    for _, patient in zip(range(300), patients(0), strict=False):
        classes = {STATEMENTS[statement][4] for statement in patient.case.statements}
        found.setdefault(patient.fold, set()).update(classes)
    assert all(classes == {"CD", "HYP", "MI", "NORM", "STTC"} for classes in found.values())


def test_statements_cover_the_codes(folder, database):
    statements = pd.read_csv(folder / "scp_statements.csv", index_col=0)
    codes = database.scp_codes.map(ast.literal_eval)
    assert {code for row in codes for code in row} <= set(statements.index)
    diagnostic = statements[statements.diagnostic == 1]
    assert set(diagnostic.diagnostic_class) == {"CD", "HYP", "MI", "NORM", "STTC"}
    assert all(any(code in diagnostic.index for code in row) for row in codes)
    assert all("NORM" not in row or len(row) == 2 for row in codes)


def test_truth_agrees_with_the_database(folder, database):
    truth = json.loads((folder / "truth.json").read_text())
    assert (truth["records"], truth["seed"], truth["leads"]) == (RECORDS, 3, list(LEADS))
    assert [int(key) for key in truth["ecgs"]] == database.index.tolist()
    for ecg_id, text in database.scp_codes.items():
        ecg, codes = truth["ecgs"][str(ecg_id)], ast.literal_eval(text)
        assert [code for code in codes if STATEMENTS[code][4]] == ecg["statements"]
        assert {sign["statement"] for sign in ecg["signs"]} <= set(ecg["statements"])
        assert bool(ecg["signs"]) == ("NORM" not in codes)
        for sign in ecg["signs"]:
            assert sign["wave"] in ("QRS", "ST", "T") and set(sign["leads"]) <= set(LEADS)
        starts = [beat["QRS"][0] for beat in ecg["beats"] if "QRS" in beat]
        assert starts == sorted(starts) and len(starts) >= 7
        for beat in ecg["beats"]:
            edges = [edge for wave in ("P", "QRS", "ST", "T") if wave in beat for edge in beat[wave]]
            assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= 1000


def test_truth_marks_the_steepest_slopes_of_the_signal(folder, database):
    truth = json.loads((folder / "truth.json").read_text())["ecgs"]
    for ecg_id, name in list(database.filename_lr.items())[:30]:
        signal = np.fromfile((folder / name).with_suffix(".dat"), "<i2").reshape(1000, 12).astype(float)
        slope = np.abs(np.diff(signal, axis=0)).sum(axis=1)
        inside = np.zeros(1000, bool)
        for beat in truth[str(ecg_id)]["beats"]:
            start, end = beat.get("QRS", (0, 0))
            inside[max(start - 1, 0) : end] = True
        assert inside[np.argsort(slope)[-10:]].all()


def test_prepare_takes_it_and_the_set_is_still_finished(folder, database, tmp_path, capfd):
    copy = shutil.copytree(folder, tmp_path / "set")
    dataset = open_shards(prepare(copy, copy / "imlenet_shards_100", progress=False))
    assert dataset.source == "synthetic"
    assert len(dataset) == RECORDS and dataset.fold.tolist() == database.strat_fold.tolist()
    for row in (0, 57, RECORDS - 1):
        written = np.fromfile((copy / database.filename_lr.iloc[row]).with_suffix(".dat"), "<i2").reshape(1000, 12)
        np.testing.assert_allclose(dataset.millivolts(np.array([row]))[0], written / 1000, atol=1e-6)
    before = (copy / "truth.json").stat().st_mtime_ns
    capfd.readouterr()
    write_dataset(copy, RECORDS, 3)
    assert capfd.readouterr() == ("", "")
    assert (copy / "truth.json").stat().st_mtime_ns == before


def test_the_command_writes_once_and_says_so(tmp_path, capsys):
    flags = ["--out", str(tmp_path / "set"), "--records", "3", "--seed", "1"]
    for last in ("synthetic data set", "nothing to do"):
        with pytest.raises(SystemExit) as end:
            main(flags)
        text = capsys.readouterr().out
        assert end.value.code == 0 and text.startswith("device: CPU") and last in text
    with pytest.raises(SystemExit) as end:
        main([*flags[:-1], "2"])
    assert end.value.code == 2 and "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(("records", "seed"), [(RECORDS + 1, 3), (RECORDS, 2)])
def test_another_set_in_the_folder_is_refused(folder, records, seed):
    with pytest.raises(UserError, match="name another folder"):
        write_dataset(folder, records, seed, progress=False)


def test_a_folder_with_other_things_or_a_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out, complaint in ((".", "exists"), ("notes.txt", "exists"), ("notes.txt/set", "is a file")):
        with pytest.raises(UserError, match=complaint):
            write_dataset(tmp_path / out, 3, 0, progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "{}", '{"version": 1}', "\xff"])
def test_a_truth_that_is_not_ours_is_refused(tmp_path, text):
    (tmp_path / "truth.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="exists"):
        write_dataset(tmp_path, 3, 0, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["truth.json"]


def test_a_linked_or_current_empty_folder_is_filled(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_dataset(tmp_path / "link", 2, 0, progress=False)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "truth.json").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_dataset(Path("."), 2, 0, progress=False)
    assert contents(tmp_path / "here") == contents(tmp_path / "real")


def test_an_empty_folder_is_filled_and_nothing_is_left_beside(tmp_path):
    out = tmp_path / "set"
    out.mkdir()
    write_dataset(out, 3, 0, progress=False)
    assert (out / "truth.json").is_file()
    assert list(tmp_path.iterdir()) == [out]


def test_what_killed_processes_left_is_removed_and_no_other(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    mine = f".set.partial-{platform.node()}-"
    names = [f"{mine}{gone.pid}", f"{mine}{os.getppid()}", f"{mine}x", f".set.partial-elsewhere-{gone.pid}"]
    for name in names:
        (tmp_path / name / "records100").mkdir(parents=True)
    write_dataset(tmp_path / "set", 2, 0, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"set", *names[1:]}


def test_an_interrupted_command_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "experiments.synthesize", "--out", str(tmp_path / "set"), "--records", "100000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    while not list(tmp_path.glob(".set.partial-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and errors.endswith("interrupted\n") and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imlenet_jax.data.synthetic._write_tables", full)
    with pytest.raises(OSError, match="No space") as error:
        write_dataset(tmp_path / "set", 3, 0, progress=False)
    assert error.value.filename == str(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
