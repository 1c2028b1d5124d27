"""The seed decides everything: the same one gives the same bits, another one gives other weights, order and dropout."""

from functools import partial

import jax
import numpy as np

from imlenet_jax.data.loader import epoch_order
from imlenet_jax.models import create_model, init_variables
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.step import new_state, train_step
from tests.training.test_step import SCALER, _batch


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny_kinds):
    model, config = tiny_kinds
    network, optimizer = create_model(model, config), make_optimizer(model)
    create = jax.jit(lambda key: new_state(init_variables(network, key), optimizer))
    step = jax.jit(partial(train_step, network, optimizer))
    records = _batch(config, records=8)

    def train(seed):
        state, losses = create(jax.random.key(seed)), []
        for epoch in (1, 2):
            order = epoch_order(8, seed, epoch)
            for rows in (order[:4], order[4:]):
                batch = jax.tree.map(lambda array, rows=rows: array[rows], records)
                state, outcome = step(state, batch, None, SCALER, np.uint32(seed))
                losses.append(outcome.loss)
        return jax.tree.leaves(jax.device_get((state, losses)))

    first, again, other = train(1), train(1), train(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert sum(not np.array_equal(a, b) for a, b in zip(first, other, strict=True)) > len(first) / 2

    if getattr(config, "dropout", 0):
        state = create(jax.random.key(0))
        losses = [
            step(state, jax.tree.map(lambda a: a[:4], records), None, SCALER, np.uint32(s))[1].loss for s in (1, 2)
        ]
        assert losses[0] != losses[1]
