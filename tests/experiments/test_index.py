"""From recordings without a table to shards, by the commands alone."""

import re

import numpy as np
import pytest

from experiments import index, prepare
from imlenet_jax.data.shards import open_shards
from tests.calls import call


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command with flags; returns (exit status, standard output, standard error)."""
    return lambda module, *flags: (call(monkeypatch, module, *flags), *capsys.readouterr())


@pytest.fixture
def folders(tmp_path, healthy_ecg):
    for number in range(6):
        folder = tmp_path / "data" / ("AF" if number % 2 else "SR")
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", 1000 * healthy_ecg(250, 10)[:, :2])
    return tmp_path / "data"


def test_from_folders_to_shards(command, folders):
    flags = ("--format", "folders", folders, "--sampling_rate", 250, "--leads", "I,II", "--unit", "uV")
    status, text, error = command(index, *flags)
    assert status == 0, error
    assert "6 recordings, 0 of them without a label" in text and "AF 3, SR 3" in text
    assert f"next: python -m experiments.prepare --records {folders / 'records.csv'}\n" in text
    own = ("--records", folders / "records.csv", "--leads", "II,aVF", "--workers", 1, "--seconds", 5)
    status, text, error = command(prepare, *own)
    assert status == 0, error
    dataset = open_shards(folders / "imlenet_shards_100")
    assert (len(dataset), dataset.length, dataset.leads) == (12, 500, ("II", "aVF"))
    assert "6 recordings gave 12 records, 0 gave none" in text
    assert "changed: 6 recordings; most often, 6 times: " in text and "folds were dealt by recording" in text
    assert "for task 'labels': 12 (AF 6, SR 6)" in text
    assert "all 6 records were prepared before" in command(prepare, *own)[1]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--seconds", 5), "--seconds is for your own recordings: give --records"),
        (("--records", "{}/records.csv", "--seconds", 0.5), "--seconds 0.5 is not from 1 to 60"),
        (("--records", "{}/records.csv", "--sampling_rate", 2000), "is not from 50 to 1000 Hz"),
        (("--records", "{}/records.csv", "--leads", "I,MLII"), "is not a list of different leads among I, II"),
        (("--records", "{}/none.csv"), "none.csv: --records takes a table"),
        (("--records", "{}/records.csv", "--root", "{}/AF"), "6 of 6 recordings in .* are not there, the first is"),
    ],
)
def test_mistakes_are_one_sentence(command, folders, flags, sentence):
    command(index, "--format", "folders", folders, "--sampling_rate", 250, "--leads", "I,II")
    status, _, error = command(prepare, *(str(flag).format(folders) for flag in flags))
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(sentence, error), error


def test_missing_recordings_can_be_left_out(command, folders):
    command(index, "--format", "folders", folders, "--sampling_rate", 250, "--leads", "I,II")
    (folders / "AF" / "1.npy").unlink()
    flags = ("--records", folders / "records.csv", "--leads", "I", "--workers", 1, "--allow_missing", True)
    status, text, _ = command(prepare, *flags)
    assert status == 0
    assert (
        "5 recordings gave 5 records, 1 gave none" in text
        and "why left out: 1 recordings; most often, 1 times: there is no" in text
    )


def test_flags_of_the_other_format_are_refused(command, folders, tmp_path):
    assert "--dx_map is for --format challenge" in command(index, "--format", "folders", folders, "--dx_map", "x")[2]
    flags = ("--format", "challenge", folders, "--unit", "uV")
    assert "are for --format folders" in command(index, *flags)[2]
