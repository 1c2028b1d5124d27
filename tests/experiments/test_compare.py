"""The comparison command as users call it."""

import json
import sys

import numpy as np
import pytest

import experiments.compare
from imlenet_jax.evaluation.report import predictions_frame


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command beside logs of two networks: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    labels = draw.random((80, 2)) < 0.5
    (tmp_path / "logs").mkdir()
    for name, noise in (("good", 0.2), ("bad", 2.0)):
        values = np.clip(0.5 * labels + 0.25 + noise * draw.normal(size=labels.shape), 0, 1)
        frame = predictions_frame(np.arange(80), labels, values, ["A", "B"])
        frame.to_csv(tmp_path / f"logs/{name}_test_predictions.csv", index=False)

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            experiments.compare.main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_compare_names_and_files(call, tmp_path):
    status, out, _ = call("good", "logs/bad_test_predictions.csv", "--resamples", 100, "--out", "there")
    assert status == 0 and "Differences: from good_test, paired bootstrap of 80 records, 100 resamples" in out
    report = json.loads((tmp_path / "there/comparison.json").read_text())
    assert report["differences"]["macro_auc"]["bad_test"]["high"] < 0
    assert report["files"] == ["logs/good_test_predictions.csv", "logs/bad_test_predictions.csv"]
    assert (tmp_path / "there/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_compare_refuses_in_one_sentence(call, tmp_path):
    text = (tmp_path / "logs/bad_test_predictions.csv").read_text()
    (tmp_path / "short.csv").write_text("".join(text.splitlines(keepends=True)[:-1]))
    (tmp_path / "file").touch()
    for flags, sentence in (
        (["good"], "a comparison needs the predictions of two networks at least"),
        (["good", "none"], "there is no file logs/none_test_predictions.csv"),
        (["good", "short.csv"], "1 records are in one file only, the first is ecg_id 79"),
        (["good", "bad", "--out", "file"], "File exists (file)"),
        (["good", "bad", "--resamples", "0"], "'0' is not a whole number of at least 1"),
    ):
        status, _, error = call(*flags)
        assert status == 2 and sentence in error and "Traceback" not in error
    assert not (tmp_path / "results/comparison/comparison.json").exists()
