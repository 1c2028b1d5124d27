"""The card says what the checkpoint and its tests know."""

from dataclasses import replace

import numpy as np

from imlenet_jax.checkpoints.card import card, parameters, write_card
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.evaluation.calibration import calibration
from imlenet_jax.evaluation.conformal import evaluate_sets
from imlenet_jax.evaluation.groups import evaluate_groups
from imlenet_jax.evaluation.report import evaluate, sigmoid
from tests.conftest import TINY

META = Meta(
    "mousavi",
    TINY["mousavi"] | {"classes": 2},
    ["A|B", "NORM"],
    ["I"] * 12,
    100,
    {"mean": 0.0, "std": 0.25},
    thresholds=[0.25, None],
    epoch=7,
    metrics={"val_macro_auc": 0.875},
    training={"model": "mousavi", "lr": 0.001, "seed": 3, "sub": False, "train_folds": [1, 2], "val_folds": [9]},
    records={"source": "PTB-XL", "ecg_ids": "1-5,9"},
    data_fingerprint="abc",
)


def test_it_says_what_the_checkpoint_knows():
    text = card(META)
    assert text.startswith("# mousavi, superclass\n\nFor research, not for diagnosis")
    assert f"| network | mousavi, {parameters(META):,} parameters |" in text
    assert "| records | 6 of fold 1, 2; validated on fold 9 |" in text and "CC BY 4.0" in text
    assert "`python -m experiments.train --model mousavi --lr 0.001 --seed 3 --train_folds 1,2`" in text
    changed = {"seed": 0, "weight_decay": 0.0, "config": {"hidden": 8}}
    command = "--lr 0.001 --weight_decay 0.0 --seed 0 --train_folds 1,2 --config '{\"hidden\": 8}'`"
    assert command in card(replace(META, training=META.training | changed))
    assert "| epoch | 7, validation macro AUC 0.8750 |" in text
    assert r"| A\|B | 0.2500 |" in text and "| NORM | - |" in text
    assert "## Test" not in text


def test_a_converted_network_says_where_it_is_from():
    text = card(
        Meta("mousavi", TINY["mousavi"], ["A"] * 5, ["I"] * 12, 100, META.scaler, training={"converted_from": "w.h5"})
    )
    assert "| converted from | w.h5 |" in text and "## Thresholds" not in text


def test_it_says_what_tests_have_found(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.random((200, 2)) < 0.4
    logits = generator.normal(size=(200, 2)) + labels
    metrics = evaluate(labels, logits, META.classes, resamples=50)
    male = np.arange(200) < 150
    groups = evaluate_groups(labels, logits, META.classes, {"sex": {"male": male, "female": ~male}}, resamples=20)
    sets = evaluate_sets((labels, sigmoid(logits)), (labels, sigmoid(logits)), META.classes, 0.9, resamples=20)
    found = {"mean": calibration(labels, sigmoid(logits), META.classes, resamples=20)}
    logs = {
        "metrics": metrics,
        "records": 200,
        "folds": [10],
        "data": "PTB-XL",
        "calibration": found,
        "temperature": 1.5,
    }
    logs["calibration"] = {"as trained": found["mean"]}
    write_card(tmp_path, META, {"logs": logs, "groups": groups, "sets": {"sets": sets}})
    text = (tmp_path / "card.md").read_text()
    auc = metrics["macro_auc"]
    assert f"| macro_auc | {auc['value']:.4f} [{auc['low']:.4f}, {auc['high']:.4f}] |" in text
    assert "200 records of fold 10 (PTB-XL)" in text and "| temperature | 1.500 |" in text
    gap = groups["by"]["sex"]["female"]["metrics"]["macro_auc"]["difference"]["value"]
    assert "| sex: male | 150 | 2 |" in text and f"| {gap:+.4f} [" in text
    assert f"| NORM | {sets['classes']['NORM']['threshold']:.4f} | {labels[:, 1].sum()} |" in text
