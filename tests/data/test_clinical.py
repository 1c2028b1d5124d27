"""Files of ECG machines: the same signal as from WFDB, no names, and no word of a reader that failed."""

import re

import numpy as np
import pytest

from imlenet_jax.data.ecg import read_ecg
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.sources import find_records, is_clinical, read_source
from imlenet_jax.errors import UserError
from tests.data import clinical_files as files

pytest.importorskip("ecgdatakit")
RATE, UV = 500, 4.88


@pytest.fixture(scope="module")
def steps():
    """(samples, leads) int16: limb leads that belong together, each lead of another size."""
    generator = np.random.default_rng(0)
    eight = np.cumsum(generator.normal(0, 8, (5000, 8)), axis=0)
    eight += 100 * np.arange(1, 9)
    one, two = eight[:, 0], eight[:, 1]
    twelve = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight[:, 2:].T]
    return np.clip(np.rint(np.stack(twelve, axis=1)), -32000, 32000).astype(np.int16)


@pytest.mark.parametrize("suffix", files.WRITERS)
def test_amplitudes_leads_and_rate_are_those_that_were_written(steps, suffix, tmp_path):
    path = tmp_path / f"record{suffix}"
    files.WRITERS[suffix](path, steps, RATE, LEADS, UV)
    (ecg,) = read_ecg(path, sampling_rate=RATE)
    assert ecg.name == "record"
    # Augmented leads are computed, or rounded to steps; EDF rounds its range to a tenth of a uV.
    np.testing.assert_allclose(ecg.signal_mv, steps * UV / 1000, atol=2 * UV / 1000)
    assert abs(ecg.signal_mv[:, 6] - steps[:, 6] * UV / 1000).max() < 0.002
    assert any(note.startswith("read as ") for note in ecg.notes)


def test_a_gain_and_an_order_of_its_own(steps, tmp_path):
    order = [11, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    files.write_dicom(tmp_path / "a", steps[:, order], RATE, [LEADS[place] for place in order], 2.5)
    (ecg,) = read_ecg(tmp_path / "a", sampling_rate=RATE)
    np.testing.assert_allclose(ecg.signal_mv, steps * 2.5 / 1000, atol=1e-5)
    assert any(note.startswith("leads put in order") for note in ecg.notes)


def test_a_representative_beat_is_not_taken_for_the_recording(steps, tmp_path):
    files.write_aecg(tmp_path / "both.xml", steps, RATE, LEADS, UV, beat=600)
    assert read_source(tmp_path / "both.xml").signal.shape == (5000, 12)
    np.testing.assert_allclose(read_source(tmp_path / "both.xml").signal, steps * UV / 1000, atol=1e-5)
    files.write_muse(tmp_path / "median.xml", steps, RATE, LEADS, UV, rhythm=False)
    with pytest.raises(UserError, match=r"median\.xml .*(holds no rhythm strip|cannot be read)"):
        read_ecg(tmp_path / "median.xml")


@pytest.mark.parametrize("suffix", files.WRITERS)
def test_a_patient_is_named_nowhere(steps, suffix, tmp_path):
    path = tmp_path / f"record{suffix}"
    files.WRITERS[suffix](path, steps, RATE, LEADS, UV)
    raw = path.read_bytes()
    assert files.PATIENT.encode() in raw
    source = read_source(path)
    assert not re.search(f"{files.PATIENT}|{files.BORN}|1931", repr(source))
    place = raw.index(files.PATIENT.encode())
    for damaged in (raw[: len(raw) // 2], raw[: place + 20], raw.replace(b"0", b"x"), raw.replace(b"uV", b"zz")):
        path.write_bytes(damaged)
        try:
            assert not re.search(f"{files.PATIENT}|{files.BORN}", repr(read_source(path)))
        except UserError as error:
            assert not re.search(f"{files.PATIENT}|{files.BORN}", str(error)) and "\n" not in str(error)


def test_a_unit_that_is_none_is_refused(steps, tmp_path):
    path = tmp_path / "r.edf"
    files.write_edf(path, steps, RATE, LEADS, UV)
    path.write_bytes(path.read_bytes().replace(b"uV      ", b"        "))
    with pytest.raises(UserError, match=r"r\.edf .*does not say how many mV a step of I, II"):
        read_source(path)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]><RestingECG><Waveform>&j;</Waveform></RestingECG>"
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.xml", BOMB.encode()),
        ("external.xml", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><AnnotatedECG>&x;</AnnotatedECG>'),
        ("empty.dcm", b""),
        ("zeros.dcm", bytes(128) + b"DICM" + bytes(200)),
        ("text.xml", b"<html>hello</html>"),
        ("huge.edf", b"0       " + b" " * 228 + b"99999999" + b"1       " + b"4   " + b" " * 2000),
        (
            "lies.scp",
            bytes(2) + (10**9).to_bytes(4, "little") + bytes(2) + bytes(2) + (36).to_bytes(4, "little") + bytes(200),
        ),
        ("noise.ecg", np.random.default_rng(0).bytes(5000)),
    ],
)
def test_hostile_files_end_in_one_sentence(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_ecg(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("suffix", files.WRITERS)
def test_damaged_anywhere_it_is_read_or_refused(steps, suffix, tmp_path):
    path = tmp_path / f"record{suffix}"
    files.WRITERS[suffix](path, steps[:1000], RATE, LEADS, UV)
    good, generator = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        bad = bytearray(good)
        for place in generator.integers(0, min(len(bad), 4000), 3):
            bad[place] = generator.integers(256)
        path.write_bytes(bytes(bad))
        try:
            source = read_source(path)
        except UserError as error:
            assert str(path) in str(error) or "Hz" in str(error)
        else:
            assert source.signal.ndim == 2


def test_files_are_found_in_a_folder_and_by_any_name(steps, tmp_path):
    files.write_dicom(tmp_path / "b.DCM", steps, RATE, LEADS, UV)
    files.write_dicom(tmp_path / "IM000001", steps, RATE, LEADS, UV)
    (tmp_path / "notes.txt").write_text("hello")
    assert find_records([tmp_path]) == [tmp_path / "b.DCM"]
    assert find_records([tmp_path / "IM000001"]) == [tmp_path / "IM000001"]
    files.write_dicom(tmp_path / "1.2.840.7", steps, RATE, LEADS, UV)
    for name, expected in (("IM000001", "IM000001"), ("b.DCM", "b"), ("1.2.840.7", "1.2.840.7")):
        assert read_source(tmp_path / name).name == expected
    (tmp_path / "IM000001.hea").write_text("")
    assert not is_clinical(tmp_path / "IM000001")  # a WFDB record beside a file of its name
    with pytest.raises(UserError, match=r"notes\.txt is of no format that is known here"):
        read_source(tmp_path / "notes.txt")


def test_without_the_extra_it_is_named(steps, tmp_path, monkeypatch):
    import sys

    files.write_edf(tmp_path / "r.edf", steps, RATE, LEADS, UV)
    monkeypatch.setitem(sys.modules, "ecgdatakit.parsing", None)
    with pytest.raises(UserError, match=r"r\.edf is no WFDB record.*pip install 'imlenet_jax\[formats\]'"):
        read_source(tmp_path / "r.edf")
