"""Training compiles once, and the device never waits for the host."""

from types import SimpleNamespace

import numpy as np
import pytest

from imlenet_jax.data.loader import select
from imlenet_jax.data.shards import open_shards
from imlenet_jax.models import make_config
from imlenet_jax.training.loop import fit
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.step import Outcome
from imlenet_jax.training.trainer import Trainer
from tests.checkpoints.test_checkpoints import _meta

CONFIG = make_config("mousavi", {"filters": [4, 4], "lstm_units": 4, "hidden": 8})
NOWHERE = SimpleNamespace(save=lambda *_: None, finish=lambda: None)


@pytest.fixture
def train(synthetic_shards):
    return select(open_shards(synthetic_shards), tuple(range(1, 9)), "training")


@pytest.mark.parametrize(
    ("changes", "programs"),
    [
        ({}, 1),
        ({"drop_last": False}, 2),
        ({"data_on_device": True, "drop_last": False}, 2),
        ({"steps_per_call": 3, "drop_last": False}, 3),  # three steps, the one that is left, the partial batch
    ],
)
def test_the_second_epoch_compiles_nothing(train, synthetic_shards, compiled, changes, programs):
    assert (len(train) // 8 % 3, len(train) % 8) == (1, 7)
    validation, epochs = select(open_shards(synthetic_shards), (9,), "validation"), []
    recipe = Recipe(batchsize=8, epochs=2, **changes)
    fit(
        _meta("mousavi", CONFIG),
        train,
        validation,
        recipe,
        Devices(1),
        NOWHERE,
        lambda row: epochs.append(len(compiled)),
    )
    assert epochs[1] == epochs[0], f"compiled anew: {compiled[epochs[0] :]}"
    assert sum("train_step" in name or "several_steps" in name for name in compiled) == programs
    assert sum("predict_step" in name for name in compiled) == 1


def test_a_loss_is_read_when_the_next_step_is_under_way(train):
    events = []

    class Loss:
        size = 1

        def __init__(self, step):
            self.step = step

        def __array__(self, dtype=None, copy=None):
            events.append(("read", self.step))
            return np.array(0.5, np.float32)

    def step(state, batch, *rest):
        events.append(("start", number := sum(kind == "start" for kind, _ in events)))
        return state, Outcome(Loss(number), np.zeros((8, 5), np.float32))

    trainer = Trainer(_meta("mousavi", CONFIG), train, Recipe(batchsize=8), Devices(1))
    trainer._step = step
    trainer.epoch(trainer.start(), 1)
    for number in range(len(train) // 8 - 1):
        assert events.index(("start", number + 1)) < events.index(("read", number))
