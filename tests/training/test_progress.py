"""A progress bar says when it is the compiler that is waited for."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from tqdm import tqdm

from imlenet_jax.data.loader import select
from imlenet_jax.data.shards import open_shards
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.progress import compiling
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.step import Outcome
from imlenet_jax.training.trainer import Trainer
from tests.checkpoints.test_checkpoints import _meta
from tests.training.test_compilations import CONFIG


@pytest.fixture
def train(synthetic_shards):
    return select(open_shards(synthetic_shards), tuple(range(1, 9)), "training")


def test_the_bar_says_that_a_shape_is_compiled(capsys):
    told, shapes = [], set()
    with tqdm(total=3, postfix={"loss": 1}) as bar:
        for rows in (8, 8, 3):
            with compiling(bar, shapes, SimpleNamespace(signal=np.zeros((rows, 2)))):
                told.append(bar.postfix)
    assert told == ["compiling", "loss=1", "compiling"]
    assert "compiling" in capsys.readouterr().err
    with tqdm(disable=True) as bar, compiling(bar, set(), np.zeros(8)):
        pass


def test_training_says_that_it_compiles(train, capsys):
    trainer = Trainer(_meta("mousavi", CONFIG), train, Recipe(batchsize=8), Devices(1))
    trainer._step = lambda state, batch, *rest: (state, Outcome(jnp.float32(0.5), jnp.zeros((8, 5))))
    state = trainer.start()
    trainer.epoch(state, 1)
    told = capsys.readouterr().err
    assert "0/7" in told.partition("compiling")[0].rpartition("\r")[2] and "loss=0.5000" in told
    trainer.epoch(state, 2)
    assert "compiling" not in capsys.readouterr().err
