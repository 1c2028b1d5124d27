"""The synthetic data set as a folder: bytes, WFDB, folds, labels, truth, and what it refuses."""

import ast
import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from imlenet_jax.data.ptbxl import LEADS
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


def test_a_finished_set_is_left_alone(folder, capsys):
    before = (folder / "truth.json").stat().st_mtime_ns
    write_dataset(folder, RECORDS, 3)
    assert (folder / "truth.json").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(("records", "seed"), [(RECORDS + 1, 3), (RECORDS, 2)])
def test_another_set_in_the_folder_is_refused(folder, records, seed):
    with pytest.raises(UserError, match="name another folder"):
        write_dataset(folder, records, seed, progress=False)


def test_a_folder_with_other_things_or_a_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="exists"):
            write_dataset(out, 3, 0, progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled_and_nothing_is_left_beside(tmp_path):
    out = tmp_path / "set"
    out.mkdir()
    write_dataset(out, 3, 0, progress=False)
    assert (out / "truth.json").is_file()
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imlenet_jax.data.synthetic._write_tables", full)
    with pytest.raises(OSError, match="No space"):
        write_dataset(tmp_path / "set", 3, 0, progress=False)
    assert list(tmp_path.iterdir()) == []
