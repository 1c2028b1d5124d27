"""The parity benchmark passes for the original's weights, and fails for others."""

import json
import shutil
import sys
from functools import partial

import jax
import numpy as np
import pytest

import benchmarks.parity
from benchmarks.parity import compare, draw
from imlenet_jax.errors import UserError


def test_mousavi_passes_and_a_disturbed_output_fails(parity_folder, tmp_path, monkeypatch):
    inputs = np.load(parity_folder / "inputs.npz")
    x, y = inputs["x"], inputs["y"].astype(np.float32)
    rows = compare("mousavi", parity_folder, x, y)
    assert [name for name, row in rows.items() if row["pass"]] == [
        "forward",
        "gradient norms",
        "training loss",
        "after",
    ]

    own = rows["gradient norms, last bit of the weights changed"]
    assert 0 < own["error"] < 1e-5 and own["bound"] is None
    assert rows["gradient norms"]["bound"] == 1e-2

    shutil.copy(parity_folder / "mousavi.h5", tmp_path)
    stored = dict(np.load(parity_folder / "mousavi.npz"))
    stored["probs"] = stored["probs"] + 2e-4
    np.savez(tmp_path / "mousavi.npz", **stored)
    # Of six changes, one that moves the weights by a half: the network is judged by what that does to its gradients.
    changed = partial(jax.tree.map, lambda array: array * 1.5)
    monkeypatch.setattr(
        benchmarks.parity, "_last_bit_changed", lambda params, seed: params if seed else changed(params)
    )
    rows = compare("mousavi", tmp_path, x, y)
    assert rows["forward"]["pass"] is False
    own = rows["gradient norms, last bit of the weights changed"]["error"]
    assert own > 0.01 and rows["gradient norms"]["bound"] == 3 * own


@pytest.mark.parametrize(("flags", "judged"), [([], True), (["--precision", "default"], False)])
def test_highest_precision_is_judged_and_default_shown(tmp_path, monkeypatch, capsys, flags, judged):
    asked = []

    def compare(*_):
        asked.append(jax.config.jax_default_matmul_precision)
        loss = {"ours": [1.0], "theirs": [1.0], "judged_steps": 1}
        return {"training loss": {"error": 1.0, "bound": 0.1, "pass": False} | loss}

    np.savez(tmp_path / "inputs.npz", x=np.zeros(1), y=np.zeros(1))
    monkeypatch.setattr(benchmarks.parity, "compare", compare)
    out = tmp_path / "parity.json"
    command = ["parity", "--golden", str(tmp_path), "--model", "mousavi", "--out", str(out), *flags]
    monkeypatch.setattr(sys, "argv", command)
    with jax.default_matmul_precision("high"), pytest.raises(SystemExit) as ended:
        benchmarks.parity.main()
    assert ended.value.code == (2 if judged else 0)
    results = json.loads(out.read_text())
    assert ("mousavi" in results, "default_precision" in results) == (judged, not judged)
    assert ("FAIL" in capsys.readouterr().out) == judged


def test_missing_weights_are_named(tmp_path):
    np.savez(tmp_path / "mousavi.npz", train_loss=np.zeros(1))
    with pytest.raises(UserError, match="has no weights of mousavi"):
        compare("mousavi", tmp_path, np.zeros((1, 1000, 12)), np.zeros((1, 5)))


def test_weights_by_rule_do_not_depend_on_their_order():
    first, again = (draw(1, "layer1.0.conv1.weight", (4, 3, 7), False) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, draw(2, "layer1.0.conv1.weight", (4, 3, 7), False))
    variance = draw(1, "bn1.running_var", (100,), True)
    assert variance.min() >= 0.5 and variance.max() <= 1.5
