"""The comparison of two runs finds every byte that is lost."""

import dataclasses
from functools import partial

import jax
import pytest

from benchmarks.faults import MODEL, compare
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.models import create_model, init_variables, make_config
from imlenet_jax.training.logs import RunLog
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.saving import Checkpoints
from imlenet_jax.training.step import new_state
from tests.conftest import TINY
from tests.training.test_logs import ROW


@pytest.fixture
def write(tmp_path):
    """Writes a run of one epoch with these weights and metrics, and names its folder."""
    network = create_model(MODEL, make_config(MODEL, TINY[MODEL]))
    start = jax.jit(partial(init_variables, network))

    def write(name, seed=0, row=ROW):
        state = new_state(start(jax.random.key(seed)), make_optimizer(MODEL))
        meta = Meta(
            MODEL, dataclasses.asdict(network.config), [], [], 100, {"mean": 0.0, "std": 1.0}, epoch=1, history=[row]
        )
        with Checkpoints(tmp_path / name / "checkpoints" / MODEL) as checkpoints:
            checkpoints.save(meta, state)
        with RunLog(tmp_path / name / "logs", MODEL, {}) as log:
            log(row)
        return tmp_path / name

    return write


def test_lost_bytes_are_counted(write):
    whole, same = write("whole"), write("same")
    for what in ("checkpoints", "logs"):
        lost, size = compare(whole, same, what)
        assert lost == 0 and size > 100
    assert compare(whole, write("weights", seed=1), "checkpoints")[0] > 1000
    other = write("metrics", row=ROW | {"train_loss": 0.25})
    assert compare(whole, other, "checkpoints")[0] > 0 and compare(whole, other, "logs")[0] > 0
    for path in (same / "logs" / f"{MODEL}_tensorboard").iterdir():
        (path.parent / "copy").write_bytes(path.read_bytes())  # every epoch twice
    assert compare(whole, same, "logs")[0] > 0
