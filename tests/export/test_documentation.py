"""The examples of docs/export.md run as they stand, and without what they say they do without."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imlenet_jax.export.verify import synthetic_ecgs
from tests.export.test_files import export, make

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "export.md").read_text(), re.S)
WITHOUT = "import sys\nfor name in {!r}:\n    sys.modules[name] = None\n"


@pytest.mark.parametrize(
    ("kind", "absent"), [("onnx", ["jax", "flax", "imlenet_jax"]), ("stablehlo", ["imlenet_jax", "flax"])]
)
def test_the_example_predicts(kind, absent, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("jax2onnx")
    classifier = make(thresholds=[0.0, 0.0, None, 1.0, 1.0])
    export(classifier, kind, tmp_path)
    ecgs = synthetic_ecgs(classifier, 2)
    np.save(tmp_path / "ecgs.npy", ecgs)
    code = WITHOUT.format(absent) + BLOCKS[0 if kind == "onnx" else 1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for row in classifier.predict_proba(ecgs):
        assert str(np.round(row, 3)[0])[:5] in done.stdout
    if kind == "onnx":
        assert "0 CD, HYP [" in done.stdout and "leads: I, II, III" in done.stdout
