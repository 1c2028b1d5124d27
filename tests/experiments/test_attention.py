"""The attention of a split, from the command line to the page."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

import experiments.attention
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.classifier import load
from imlenet_jax.data.shards import open_shards
from imlenet_jax.models import create_model, make_config
from imlenet_jax.training.saving import Checkpoints
from tests.conftest import initial_variables

SMALL = {"filters": [4, 4], "blocks_per_stage": 1, "lstm_units": 4, "attention_dim": 4}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the command in an empty folder; the exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*flags) -> int:
        monkeypatch.setattr(sys, "argv", ["attention", *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            experiments.attention.main()
        return ended.value.code

    return run


def test_a_split_is_summarised_and_drawn(call, tmp_path, synthetic_shards, capsys):
    dataset = open_shards(synthetic_shards)
    meta = Meta("imle_net", SMALL, list(dataset.task().classes), list(dataset.leads), 100, {"mean": 0.0, "std": 0.2})
    network = create_model("imle_net", make_config("imle_net", SMALL))
    with Checkpoints(tmp_path / "checkpoints/imle_net") as checkpoints:
        checkpoints.save(meta, variables=initial_variables(network))

    assert call("--data_dir", synthetic_shards, "--test_folds", "9,10", "--examples", 1) == 0
    out = tmp_path / "results/attention/imle_net_test"
    summary = json.loads((out / "summary.json").read_text())
    leads, records = pd.read_csv(out / "leads.csv"), pd.read_csv(out / "records.csv")
    windows = pd.read_csv(out / "windows.csv")

    rows = np.flatnonzero(np.isin(dataset.ecg_id, records["ecg_id"]))
    expected = load("checkpoints/imle_net").attend(dataset.millivolts(rows))["channel"].mean(axis=0)
    everyone = leads[leads["class"] == "all"]
    np.testing.assert_allclose(everyone["mean"], expected, rtol=1e-5)
    assert everyone["name"].tolist() == list(dataset.leads) and everyone["n"].unique() == [len(records)]
    assert windows.groupby("class")["mean"].sum().dropna().to_numpy() == pytest.approx(1)
    assert summary["records"] == len(records) == len(rows) and summary["folds"] == [9, 10]
    assert summary["leads"]["all"]["weights"]["V3"]["mean"] == pytest.approx(expected[8], rel=1e-5)

    assert records["entropy"].is_monotonic_increasing
    sharpest, flattest = int(records["ecg_id"].iloc[0]), int(records["ecg_id"].iloc[-1])
    assert summary["sharpest"] == [sharpest] and summary["flattest"] == [flattest]
    text = (out / "index.html").read_text("utf-8")
    assert "<h1>Attention of imle_net, test</h1>" in text
    links = re.findall(r'href="(records/[^"]+)"', text)
    assert links == [f"records/{number}/channel_visualization.html" for number in (sharpest, flattest)]
    assert all((out / link).is_file() for link in links)
    assert (out / f"records/{flattest}/visualization.png").is_file()
    assert text.count("data:image/png;base64,") == 2 and (out / "leads.png").read_bytes()[:4] == b"\x89PNG"
    assert "fixed half-seconds, not heart beats" in text and "For research, not for diagnosis." in text
    assert f"all   ({len(records)} records)" in capsys.readouterr().out

    (tmp_path / "file").touch()
    assert call("--data_dir", synthetic_shards, "--out", "file") == 2
    assert "error: Not a directory (file/imle_net_test)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "ecgnet"], "error: --model ecgnet has no attention: only imle_net can be asked where it looked"),
        (["--model", "resnet"], "error: --model 'resnet' is unknown"),
        ([], "checkpoints/imle_net: no such checkpoint folder"),
        (["--examples", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_refusals_are_one_sentence(call, synthetic_shards, capsys, flags, sentence):
    assert call("--data_dir", synthetic_shards, *flags) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
