"""Own recordings and labels, from the table to answers, by the commands alone."""

import csv
import json

import numpy as np
import pytest

from experiments import inference, prepare, test, train
from imlenet_jax.classifier import load
from imlenet_jax.data.shards import open_shards
from tests.calls import call as run

SMALL = json.dumps({"kernel_size": 2, "filters": 2, "blocks": 1, "widen_every": 1})
SETS = "logs/rajpurkar_labels_test_sets.json"
pytestmark = pytest.mark.filterwarnings("always::imlenet_jax.errors.DataWarning")  # as users see them


def test_from_a_table_to_answers(tmp_path, monkeypatch, capsys, healthy_ecg):
    monkeypatch.chdir(tmp_path)

    def call(command, *flags):
        assert run(monkeypatch, command, *flags) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    rows, ecg = ["record,split,large,odd,sampling_rate,leads,ward"], healthy_ecg(250, 5)[:, [1, 0, 6]]
    for number in range(40):
        large, odd = number // 2 % 2, number % 2
        np.save(f"{number}.npy", (1.5 if large else 0.8) * ecg * (-1 if odd else 1))
        rows.append(f"{number}.npy,{('train', 'train', 'val', 'test')[number // 10]},{large},{odd},250,II I V1,W{odd}")
    (tmp_path / "records.csv").write_text("\n".join(rows) + "\n")
    shape = ("--leads", "I,II,V1", "--sampling_rate", 50, "--seconds", 5, "--workers", 1)
    out = call(prepare, "--records", "records.csv", "--out", "shards", *shape)
    assert "large: 50.0% / 40.0% / 60.0% of the records in these folds" in out
    model = ("--model", "rajpurkar", "--data_dir", "shards", "--batchsize", 8)
    call(train, *model, "--config", SMALL, "--epochs", 1)
    out = call(test, *model, "--coverage", 0.5, "--by", "ward")
    assert "under 20 records, no metrics: W0 (5), W1 (5)" in out
    report = json.loads((tmp_path / "logs/rajpurkar_labels_test_logs.json").read_text())
    assert (report["task"], report["records"], report["data"]) == ("labels", 10, "own recordings")
    assert sorted(report["metrics"]["class_auc"]) == ["large", "odd"]

    files = [f"{number}.npy" for number in range(30, 40)]
    table = ("--sampling_rate", 250, "--leads", "II,I,V1")
    call(
        inference,
        "--model",
        "rajpurkar",
        "--task",
        "labels",
        "--dir",
        *files,
        *table,
        "--figures",
        "False",
        "--sets",
        SETS,
    )
    with open(tmp_path / "results/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = [[float(row["prob_large"]), float(row["prob_odd"])] for row in rows]
    dataset = open_shards(tmp_path / "shards")
    assert dataset.about["record"][30:].tolist() == files
    expected = load("checkpoints/rajpurkar_labels").predict_proba(dataset.millivolts(np.arange(30, 40)))
    np.testing.assert_allclose(answers, expected, atol=5e-3)  # what shards round away

    with open(tmp_path / SETS.replace(".json", ".csv"), newline="") as file:
        sets = list(csv.DictReader(file))
    assert [row["record"] for row in sets] == files
    classes = json.loads((tmp_path / SETS).read_text())["sets"]["classes"]
    for row, told in zip(rows, sets, strict=True):
        for name in ("large", "odd"):
            if abs(float(row[f"prob_{name}"]) - classes[name]["threshold"]) > 5e-3:
                assert int(row[f"possible_{name}"]) == (name in told["set"].split(";"))
