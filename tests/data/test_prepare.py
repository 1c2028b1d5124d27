"""From a PTB-XL folder to shards: lossless, once, resumable, and never half."""

import errno
import fcntl
import json
import shutil
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from imlenet_jax.data import convert
from imlenet_jax.data.manifest import read_manifest
from imlenet_jax.data.prepare import default_out, prepare, prepare_shards
from imlenet_jax.data.ptbxl import LEADS, SUPERCLASSES
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.tasks import Task
from imlenet_jax.errors import DataWarning, UserError

pytestmark = pytest.mark.usefixtures("records_per_shard")


def run(tiny, out, **flags):
    return prepare_shards(tiny.path, out, progress=False, **flags)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def assert_nothing_to_open(out):
    assert not (out / "manifest.json").exists()
    with pytest.raises(UserError, match="there is no"):
        open_shards(out)


def test_everything_of_the_folder_is_in_the_shards(tiny_ptbxl, out):
    assert prepare(tiny_ptbxl.path, out, progress=False) == out
    dataset = open_shards(out)
    np.testing.assert_array_equal(dataset.signals(range(24)), tiny_ptbxl.signals)
    np.testing.assert_array_equal(dataset.ecg_id, np.arange(1, 25))
    np.testing.assert_array_equal(dataset.patient_id, np.arange(24) // 2)
    np.testing.assert_array_equal(dataset.fold, np.arange(24) // 2 % 10 + 1)
    assert dataset.scp_codes[0] == {"NORM": 100.0, "SR": 0.0}
    statements = {"NDT": "STTC", "NORM": "NORM", "IMI": "MI", "LVH": "HYP", "CRBBB": "CD"}
    assert dataset.task() == dataset.task("superclass") == Task("superclass", SUPERCLASSES, statements)
    assert (dataset.leads, list(dataset.tasks)) == (LEADS, ["superclass", "diagnostic", "all"])
    with pytest.raises(UserError, match="has no task 'rhythm': choose --task superclass or diagnostic or all"):
        dataset.task("rhythm")
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "manifest.json", *(f"shard-{number:05d}.npy" for number in range(5))
    ]  # fmt: skip


def test_the_scaler_is_that_of_labelled_records_of_folds_1_to_8(tiny_ptbxl, out):
    dataset = open_shards(prepare(tiny_ptbxl.path, out, progress=False))
    labelled = np.array([bool(set(codes) & set(dataset.task().statements)) for codes in dataset.scp_codes])
    values = tiny_ptbxl.signals[labelled & (dataset.fold <= 8)] / 1000
    assert 0 < len(values) < 24
    np.testing.assert_allclose(dataset.scaler, (values.mean(), values.std()), rtol=1e-12)


def test_without_records_in_folds_1_to_8_only_the_scaler_is_lacking(tiny_ptbxl, out):
    tiny_ptbxl.rewrite_table("strat_fold", dict.fromkeys(range(24), "10"))
    dataset = open_shards(prepare(tiny_ptbxl.path, out, progress=False))
    with pytest.raises(UserError, match="no records with a class in folds 1-8"):
        _ = dataset.scaler


def test_a_second_run_does_nothing(tiny_ptbxl, out):
    assert run(tiny_ptbxl, out).records == 24
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != ".lock"}
    assert run(tiny_ptbxl, out) == (out, 0, 0.0)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != ".lock"}


def test_the_result_does_not_depend_on_the_number_of_workers(tiny_ptbxl, tmp_path):
    one, four = (run(tiny_ptbxl, tmp_path / str(n), workers=n).path for n in (1, 4))
    assert (one / "manifest.json").read_bytes() == (four / "manifest.json").read_bytes()


def test_an_interrupted_run_resumes(tiny_ptbxl, out, tmp_path, monkeypatch):
    write, written = convert.write_atomically, []

    def interrupt(path, data):
        if path.name == "shard-00003.npy":
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_atomically", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_ptbxl, out, workers=1)
    assert_nothing_to_open(out)
    assert "shard-00002.npy" in written
    assert run(tiny_ptbxl, out).records in (5, 9)  # shard 3, and 4 unless it was begun before the interrupt was seen
    fresh = run(tiny_ptbxl, tmp_path / "fresh").path
    assert (out / "manifest.json").read_bytes() == (fresh / "manifest.json").read_bytes()


def test_a_shard_that_was_damaged_meanwhile_is_made_again(tiny_ptbxl, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("imlenet_jax.data.prepare.write_manifest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tiny_ptbxl, out)
    (out / "shard-00001.npy").write_bytes(b"")
    (out / "shard-00002.json").write_text("{")
    assert run(tiny_ptbxl, out).records == 10
    open_shards(out).verify()


def test_a_changed_table_means_anew(tiny_ptbxl, out):
    run(tiny_ptbxl, out)
    tiny_ptbxl.rewrite_table("scp_codes", {0: "{'IMI': 80.0}"})
    assert run(tiny_ptbxl, out).records == 24
    assert open_shards(out).scp_codes[0] == {"IMI": 80.0}


def test_a_lost_shard_means_anew(tiny_ptbxl, out):
    run(tiny_ptbxl, out)
    (out / "shard-00004.npy").unlink()
    assert run(tiny_ptbxl, out).records > 0
    open_shards(out).verify()


def test_missing_records_are_counted_named_and_may_be_allowed(tiny_ptbxl, out):
    hidden = [tiny_ptbxl.file(2, ".dat"), tiny_ptbxl.file(5, ".hea")]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    message = r"2 of 24 records in .* lack files, the first is records100/00000/00003_lr: .*--allow_missing True"
    with pytest.raises(UserError, match=message):
        run(tiny_ptbxl, out)
    assert not out.exists()
    assert run(tiny_ptbxl, out, allow_missing=True).records == 22
    assert len(open_shards(out)) == 22
    assert 3 not in open_shards(out).ecg_id
    assert run(tiny_ptbxl, out, allow_missing=True).records == 0
    with pytest.raises(UserError, match="2 of 24 records"):
        run(tiny_ptbxl, out)
    for path in hidden:
        path.with_suffix(".hidden").rename(path)
    assert run(tiny_ptbxl, out).records == 24
    assert len(open_shards(out)) == 24


def test_no_records_at_all_is_refused_even_when_missing_ones_are_allowed(tiny_ptbxl, out):
    with pytest.raises(UserError, match="has the files of no record at all"):
        run(tiny_ptbxl, out, sampling_rate=500, allow_missing=True)
    assert not out.exists()


def test_another_sampling_rate_is_not_written_over(tiny_ptbxl, out):
    run(tiny_ptbxl, out)
    with pytest.raises(UserError, match="holds shards at 100 Hz: choose another folder with --out"):
        run(tiny_ptbxl, out, sampling_rate=500)


def test_an_unknown_sampling_rate_is_refused(tiny_ptbxl):
    with pytest.raises(UserError, match="--sampling_rate must be 100 or 500"):
        default_out(tiny_ptbxl.path, 250)


@pytest.mark.parametrize("name", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_folder_without_its_tables_is_refused(tiny_ptbxl, out, name):
    (tiny_ptbxl.path / name).unlink()
    with pytest.raises(UserError, match=f"there is no {name} in"):
        run(tiny_ptbxl, out)


def test_no_such_folder(tmp_path, out):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        prepare(tmp_path / "nowhere", out)


def test_a_file_in_the_way_of_the_folder(tiny_ptbxl, out):
    out.write_text("")
    with pytest.raises(UserError, match="a file is in its way"):
        run(tiny_ptbxl, out)


def test_an_invalid_sample_is_refused(tiny_ptbxl, out):
    samples = tiny_ptbxl.signals[7].copy()
    samples[500, 6] = -32768
    tiny_ptbxl.write(7, samples)
    with pytest.raises(UserError, match=r"00008_lr has an invalid sample \(-32768, in effect NaN\) in lead V1"):
        run(tiny_ptbxl, out)
    assert_nothing_to_open(out)


def test_samples_that_do_not_match_the_header_are_refused(tiny_ptbxl, out):
    samples = tiny_ptbxl.signals[7].copy()
    samples[500, 6] += 1
    tiny_ptbxl.file(7, ".dat").write_bytes(samples.tobytes())
    with pytest.raises(UserError, match=r"00008_lr\.hea does not match that header's checksum of lead V1"):
        run(tiny_ptbxl, out)
    assert_nothing_to_open(out)


def test_flat_leads_are_counted_and_warned_of(tiny_ptbxl, out):
    for row, leads in ((3, [2]), (9, [0, 11])):
        samples = tiny_ptbxl.signals[row].copy()
        samples[:, leads] = 5
        tiny_ptbxl.write(row, samples)
    with pytest.warns(DataWarning, match="3 leads are flat, the first is lead III of ecg_id 4"):
        run(tiny_ptbxl, out)
    assert read_manifest(out)["flat_leads"] == [[4, "III"], [10, "I"], [10, "V6"]]


def test_a_flat_lead_needs_no_checksum(tiny_ptbxl, out):
    samples = tiny_ptbxl.signals[3].copy()
    samples[:, 2] = 5
    tiny_ptbxl.file(3, ".dat").write_bytes(samples.tobytes())
    with pytest.warns(DataWarning, match="1 leads are flat"):
        run(tiny_ptbxl, out)


def test_a_full_disk_leaves_nothing_to_open(tiny_ptbxl, out, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_atomically", full)
        with pytest.raises(OSError, match="no space left"):
            run(tiny_ptbxl, out)
    assert_nothing_to_open(out)
    assert run(tiny_ptbxl, out).records == 24


def test_a_second_process_waits_and_then_finds_all_done(tiny_ptbxl, out, capfd):
    out.mkdir()
    done = []
    with open(out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: done.append(run(tiny_ptbxl, out)))
        thread.start()
        deadline = time.monotonic() + 20
        while "waiting for it" not in capfd.readouterr().err and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not done
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join()
    assert done[0].records == 24


PREPARE = """
import sys, pathlib
from imlenet_jax.data import prepare
prepare.SHARD_SAMPLES = 5000
print(prepare.prepare_shards(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), progress=False).records)
"""


def test_of_two_processes_one_works_and_the_other_finds_all_done(tiny_ptbxl, out):
    command = [sys.executable, "-c", PREPARE, tiny_ptbxl.path, out]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(int(text) for text, _ in said) == [0, 24]
    dataset = open_shards(out)
    dataset.verify()
    np.testing.assert_array_equal(dataset.signals(range(24)), tiny_ptbxl.signals)


@pytest.mark.parametrize("place", ["folder", "shard"])
def test_shards_that_are_removed_in_mid_run_are_missed(tiny_ptbxl, out, monkeypatch, place):
    write = convert.write_atomically

    def remove(path, data):
        if path.name == "shard-00003.json":
            shutil.rmtree(out) if place == "folder" else (out / "shard-00000.npy").unlink()
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_atomically", remove)
        with pytest.raises(UserError, match=r"shard-0000\d.npy was removed while the other shards were made: run"):
            run(tiny_ptbxl, out, workers=1)
    assert_nothing_to_open(out)
    assert run(tiny_ptbxl, out).records > 0
    open_shards(out).verify()


def test_a_source_that_is_removed_in_mid_run_is_missed(tiny_ptbxl, out, monkeypatch):
    write = convert.write_atomically

    def remove(path, data):
        shutil.rmtree(tiny_ptbxl.path, ignore_errors=True)
        write(path, data)

    monkeypatch.setattr(convert, "write_atomically", remove)
    with pytest.raises(UserError, match=r"there is no .*: restore the record from PTB-XL"):
        run(tiny_ptbxl, out, workers=1)
    assert_nothing_to_open(out)


def test_a_file_that_cannot_grow_leaves_what_was_there_valid(tiny_ptbxl, out, file_size_limit):
    file_size_limit(60_000)
    with pytest.raises(OSError, match="File too large") as error:
        run(tiny_ptbxl, out)
    assert error.value.filename.startswith(str(out))
    assert_nothing_to_open(out)
    assert not list(out.glob(".*.tmp"))


def test_a_part_that_was_changed_is_made_again(tiny_ptbxl, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("imlenet_jax.data.prepare.write_manifest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tiny_ptbxl, out)
    tiny_ptbxl.edit(out / "shard-00002.json", '"flat":[]', '"flat":[[1,"I"]]')
    assert run(tiny_ptbxl, out).records == 5
    assert read_manifest(out)["flat_leads"] == []


def test_the_manifest_is_strict_json_with_a_checksum_per_shard(tiny_ptbxl, out):
    run(tiny_ptbxl, out)
    content = json.loads((out / "manifest.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [len(shard["crc32"]) for shard in content["shards"]] == [8] * 5
    assert content["source"]["missing"] == []
    assert content["source"]["name"] == open_shards(out).source == "PTB-XL"


@pytest.mark.filterwarnings("default:.*are flat:imlenet_jax.errors.DataWarning")
def test_real_records_decode_as_wfdb_does(ptbxl_folder, out, monkeypatch):
    monkeypatch.setattr("imlenet_jax.data.prepare.SHARD_SAMPLES", 16 * 5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb
    dataset = open_shards(prepare(ptbxl_folder, out, 500, allow_missing=True, progress=False))
    assert (len(dataset), dataset.length) == (20, 5000)
    expected = [wfdb.rdsamp(str(ptbxl_folder / f"records500/00000/{n:05d}_hr"))[0] for n in (1, 17)]
    np.testing.assert_array_equal(dataset.millivolts([0, 16]), np.array(expected, np.float32))
