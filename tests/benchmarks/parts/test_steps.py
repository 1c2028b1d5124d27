"""The measured step is the project's own, and other data types wait for networks that know them."""

import jax
import numpy as np

from benchmarks.parts import steps
from benchmarks.parts.records import first_batch, random_dataset
from imlenet_jax.data.loader import select
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.models import make_config
from imlenet_jax.training.parallel import Devices
from tests.conftest import TINY


def test_training_moves_the_state_and_inference_does_not(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.parts.records.SECONDS", 1)
    devices = Devices(2)
    batch = devices.put_batch(first_batch(select(random_dataset(tmp_path, 4), (1,), "training"), 4))
    config = make_config("mousavi", TINY["mousavi"])

    train, infer = (
        steps.Step("mousavi", mode, config, "float32", batch, Scaler(0.0, 1.0), devices) for mode in steps.MODES
    )
    first, second = float(train(batch)), float(train(batch))
    assert second < first
    logits = infer(batch)
    assert logits.shape == (4, 5)
    np.testing.assert_array_equal(logits, infer(batch))
    parameters = sum(array.nbytes for array in jax.tree.leaves(infer.state))
    assert train.peak_bytes > 3 * parameters  # with the two moments of Adam
    assert train.compile_seconds > 0
