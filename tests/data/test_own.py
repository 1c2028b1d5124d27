"""Own recordings to shards: the signal that inference sees, nothing dropped silently, and whole after any end."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from imlenet_jax.data import own
from imlenet_jax.data.ecg import read_ecg
from imlenet_jax.data.leads import LIMB
from imlenet_jax.data.listing import read_listing
from imlenet_jax.data.loader import select
from imlenet_jax.data.own import Shape, prepare_own, quantise
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.sources import TableFormat
from imlenet_jax.errors import UserError

SMALL = Shape(leads=("I", "II", "V1"), sampling_rate=50, seconds=4)


def write_csv(path, seconds, rate=100, seed=0, leads=("V1", "II", "I"), factor=1000):
    """A noisy pulse train in uV, the columns out of order."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pulse = np.exp(-(((time + seed / 10) % 0.8 - 0.4) ** 2) / 0.0008)
    signal = pulse[:, None] * rng.uniform(0.5, 1.5, len(leads)) + rng.normal(0, 0.01, (len(time), len(leads)))
    np.savetxt(
        path, factor * signal, delimiter=",", header=",".join(f"{n} (uV)" for n in leads), comments="", fmt="%.3f"
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """12 recordings: two of three windows, one too short, one that is no table; shards of five records."""
    monkeypatch.setattr(own, "SHARD_SAMPLES", 5 * SMALL.length)
    rows = []
    for number in range(12):
        seconds = {3: 13, 7: 12, 5: 2}.get(number, 4)
        write_csv(tmp_path / f"{number}.csv", seconds, seed=number)
        rows.append(
            f"{number}.csv,p{number // 2},{number % 10 // 2 + 1},100,{number % 2},{int(number > 3)},ward {number}"
        )
    (tmp_path / "9.csv").write_text("I,II\nno,number\n")
    header = "record,patient_id,fold,sampling_rate,A,B,place"
    (tmp_path / "records.csv").write_text("\n".join([header, *rows]) + "\n")
    return tmp_path


def prepare(folder, workers=1):
    return prepare_own(read_listing(folder / "records.csv"), folder / "out", SMALL, workers, progress=False)


def test_shards_hold_what_inference_reads(folder):
    assert prepare(folder).records == 12
    dataset = open_shards(folder / "out")
    assert (dataset.sampling_rate, dataset.length, dataset.leads) == (50, 200, SMALL.leads)
    names = dataset.about["record"].tolist()
    assert names == [f"{n}.csv" for n in (0, 1, 2, 3, 3, 3, 4, 6, 7, 7, 7, 8, 10, 11)]
    assert dataset.about["window"].tolist()[3:6] == ["[0-4s]", "[4-8s]", "[8-12s]"]
    assert dataset.about["place"][3] == "ward 3" and dataset.about["patient_id"][-1] == "p5"
    table = TableFormat(100.0)
    for name in dict.fromkeys(names):
        windows = read_ecg(folder / name, SMALL.leads, 50, 4, table)
        rows = [row for row, other in enumerate(names) if other == name]
        found = dataset.millivolts(rows)
        np.testing.assert_allclose(found, np.stack([window.signal_mv for window in windows]), atol=0.6e-3)
        assert len(set(dataset.fold[rows].tolist())) == 1
    task = dataset.task()
    assert (task.name, task.classes) == ("labels", ("A", "B"))
    assert select(dataset, (1,), "training").labels.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_the_report_has_a_row_for_each_recording(folder):
    prepare(folder)
    with open(folder / "out" / "prepare_report.csv", newline="") as file:
        rows = {row["record"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"{number}.csv" for number in range(12)]
    assert [rows[f"{number}.csv"]["windows"] for number in (0, 3, 5, 7, 9)] == ["1", "3", "0", "3", "0"]
    assert "lasts 2 s, less than 4 s" in rows["5.csv"]["why_left_out"]
    assert "is not a table of numbers" in rows["9.csv"]["why_left_out"]
    assert (
        "the last 1 s were dropped" in rows["3.csv"]["changed"]
        and "resampled from 100 to 50 Hz" in rows["3.csv"]["changed"]
    )
    assert 0.3 < float(rows["0.csv"]["deflection_mv"]) < 2


def test_several_processes_and_a_second_run_give_the_same(folder):
    prepare(folder)
    first = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert prepare(folder).records == 0  # up to date
    for path in (folder / "out").iterdir():
        path.unlink()
    prepare(folder, workers=2)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == first
    assert {name for name in first if not name.startswith(".")} == {
        "manifest.json",
        "prepare_report.csv",
        "shard-00000.npy",
        "shard-00001.npy",
        "shard-00002.npy",
    }


@pytest.mark.parametrize("stop_at", [4, 6, 9, 12])
def test_an_ended_run_goes_on_where_it_was(folder, monkeypatch, stop_at):
    prepare(folder)
    whole = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    for path in (folder / "out").iterdir():
        path.unlink()
    read, calls = own.take, []

    def take(*args):
        calls.append(args[0].name)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return read(*args)

    monkeypatch.setattr(own, "take", take)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder)
    assert not (folder / "out" / "manifest.json").exists()
    written = len(list((folder / "out").glob("shard-*.npy")))
    calls.clear()
    monkeypatch.setattr(own, "take", lambda *args: calls.append(args[0].name) or read(*args))
    prepare(folder)
    assert len(calls) == 12 - {0: 0, 1: 3, 2: 7}[written]
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == whole


def test_a_changed_table_is_prepared_anew(folder):
    prepare(folder)
    path = folder / "records.csv"
    path.write_text(path.read_text().replace("ward 3", "ward 33"))
    assert prepare(folder).records == 12
    assert open_shards(folder / "out").about["place"][3] == "ward 33"


def test_nothing_usable_is_refused_and_the_report_says_why(folder):
    (folder / "records.csv").write_text("record,sampling_rate,A\n5.csv,100,1\n9.csv,100,0\n")
    with pytest.raises(UserError, match=r"no recording of .*records.csv can be used: .*prepare_report.csv says why"):
        prepare(folder)
    assert (folder / "out" / "prepare_report.csv").read_text().count("\n") == 3


def test_recordings_that_are_mended_are_taken_the_next_time(folder):
    (folder / "records.csv").write_text("record,sampling_rate,A\n9.csv,100,0\n12.csv,100,1\n")
    with pytest.raises(UserError, match="no recording of"):
        prepare(folder)
    write_csv(folder / "9.csv", 4)
    assert prepare(folder).records == 2 and len(open_shards(folder / "out")) == 1
    write_csv(folder / "12.csv", 4)
    assert prepare(folder).records == 2 and len(open_shards(folder / "out")) == 2
    assert prepare(folder).records == 0


def test_a_signal_file_that_is_mended_is_read_anew(tiny_ptbxl):
    folder = tiny_ptbxl.path
    paths = sorted((folder / "records100").rglob("*.hea"))
    rows = [f"{path.relative_to(folder).with_suffix('')},{number % 2}" for number, path in enumerate(paths)]
    (folder / "records.csv").write_text("\n".join(["record,A", *rows]) + "\n")
    cut = paths[0].with_suffix(".dat")
    whole = cut.read_bytes()
    cut.write_bytes(whole[:100])
    assert prepare(folder).records == len(paths) and prepare(folder).records == 0
    before = len(open_shards(folder / "out"))
    cut.write_bytes(whole)
    assert prepare(folder).records == len(paths) and len(open_shards(folder / "out")) > before


def test_a_lead_beyond_all_measure_costs_its_own_recording_only(folder):
    np.savetxt(
        folder / "0.csv", np.full((400, 3), 8388607.0), delimiter=",", header="I (mV),II (mV),V1 (mV)", comments=""
    )
    prepare(folder)
    assert "0.csv" not in open_shards(folder / "out").about["record"].tolist()
    report = (folder / "out" / "prepare_report.csv").read_text().splitlines()
    assert "a lead lies millions of mV from 0" in report[1]


def test_shards_of_other_data_are_left_alone(folder, tiny_ptbxl):
    from imlenet_jax.data.prepare import prepare as prepare_ptbxl

    prepare_ptbxl(tiny_ptbxl.path, folder / "out", progress=False)
    with pytest.raises(UserError, match=r"out holds shards of PTB-XL: choose another folder with --out"):
        prepare(folder)
    shutil.rmtree(folder / "out")
    prepare(folder)
    with pytest.raises(UserError, match=r"out holds shards of own recordings: give it as --data_dir"):
        prepare_ptbxl(tiny_ptbxl.path, folder / "out", sampling_rate=50, progress=False)


def test_missing_samples_leave_a_window_out(folder):
    signal = np.random.default_rng(0).normal(size=(800, 3))
    signal[500, 1] = np.nan
    np.save(folder / "0.npy", signal)
    (folder / "records.csv").write_text("record,sampling_rate,leads,A\n0.npy,100,I II V1,1\n")
    prepare(folder)
    dataset = open_shards(folder / "out")
    assert dataset.about["window"].tolist() == ["[0-4s]"]
    with open(folder / "out" / "prepare_report.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["why_left_out"] == "1 of 2 windows lack samples" and "samples are missing in II" in row["implausible"]


@pytest.mark.parametrize(
    ("offset", "size", "bound"), [(0, 1, 0.5e-3), (0, 30, 0.5e-3), (200, 5, 0.5e-3), (-90, 60, 1e-3)]
)
def test_rounding_is_at_most_a_microvolt(offset, size, bound):
    signal = (offset + size * np.random.default_rng(0).uniform(-1, 1, (100, 2))).astype(np.float32)
    signal[:, 1] = offset  # a flat lead
    steps, gain, baseline = quantise(signal)
    restored = (steps - np.array(baseline)) / np.array(gain)
    assert np.abs(restored - signal.astype(np.float64)).max() <= bound + 1e-5
    assert steps.dtype == np.int16 and np.abs(steps.astype(int)).max() < 32768


def test_any_lead_set_of_the_twelve_is_derived(folder):
    """Two limb leads make six, in training as in inference."""
    write_csv(folder / "0.csv", 4, leads=("I", "II"))
    (folder / "records.csv").write_text("record,sampling_rate,A\n0.csv,100,1\n")
    shape = Shape(tuple(LIMB), 100, 4)
    prepare_own(read_listing(folder / "records.csv"), folder / "six", shape, 1, progress=False)
    dataset = open_shards(folder / "six")
    mv = dataset.millivolts([0])[0]
    np.testing.assert_allclose(mv[:, 2], mv[:, 1] - mv[:, 0], atol=2e-3)
    assert (
        set(dataset.leads) < set(LEADS) and json.loads((folder / "six" / "manifest.json").read_text())["length"] == 400
    )


def test_a_kill_leaves_no_process_behind_and_the_next_run_goes_on(folder, monkeypatch):
    monkeypatch.undo()  # another process has shards of the usual size
    rows = ["record,sampling_rate,A"]
    for number in range(3000):
        (folder / f"link{number}.csv").symlink_to(folder / "0.csv")
        rows.append(f"link{number}.csv,100,1")
    (folder / "records.csv").write_text("\n".join(rows) + "\n")
    flags = ("--leads", "I,II,V1", "--seconds", "4", "--workers", "2", "--out", folder / "killed")
    command = [sys.executable, "-m", "experiments.prepare", "--records", folder / "records.csv", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None and not list((folder / "killed").glob("shard-*.json")):
            time.sleep(0.05)
        process.kill()
        process.communicate(timeout=60)  # returns when nobody holds the other end, its readers included
    assert process.returncode == -signal.SIGKILL
    shape = Shape(leads=SMALL.leads, sampling_rate=100, seconds=4)
    done = prepare_own(read_listing(folder / "records.csv"), folder / "killed", shape, 1, progress=False)
    assert 0 < done.records < 3000 and len(open_shards(folder / "killed")) == 3000
