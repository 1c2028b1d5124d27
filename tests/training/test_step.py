"""The training step: what it computes, and that devices and padding do not change it."""

from functools import partial

import jax
import numpy as np
import pytest

from imlenet_jax.data.loader import Batch
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.errors import UserError
from imlenet_jax.models import create_model, make_config
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.step import new_state, predict_step, record_losses, standardise, train_step
from tests.conftest import TINY, initial_variables

SCALER = Scaler(0.1, 0.5)


def _batch(config, records=8, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        rng.integers(-1500, 1500, (records, config.length, config.leads)).astype(np.int16),
        np.full((records, config.leads), 1000, np.float32),
        np.full((records, config.leads), 20, np.float32),
        rng.integers(0, 2, (records, config.classes)).astype(np.float32),
        np.ones(records, np.float32),
    )


def _start(model, config):
    network = create_model(model, config)
    optimizer = make_optimizer(model)
    state = new_state(initial_variables(network), optimizer)
    return jax.jit(partial(train_step, network, optimizer)), state


def test_standardise_honours_gain_baseline_and_scaler():
    batch = Batch(np.array([[[1020], [20]]], np.int16), np.array([[1000.0]]), np.array([[20.0]]), None, None)
    np.testing.assert_allclose(standardise(batch, SCALER).ravel(), [(1 - 0.1) / 0.5, (0 - 0.1) / 0.5], rtol=1e-6)


def test_loss_is_binary_cross_entropy_from_logits():
    logits, label = np.array([[0.0, 100.0], [-3.0, 2.0]], np.float32), np.array([[1, 1], [0, 0]], np.float32)
    expected = [(np.log(2) + 0) / 2, (np.log1p(np.exp(-3)) + np.log1p(np.exp(2))) / 2]
    np.testing.assert_allclose(record_losses(logits, label), expected, rtol=1e-5)


def test_loss_of_exclusive_classes_is_that_of_a_softmax():
    logits, label = np.array([[0.0, 0.0, 0.0], [100.0, 0.0, -3.0]], np.float32), np.array([[0, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose(record_losses(logits, label, exclusive=True), [np.log(3), 100], rtol=1e-6)


def test_a_step_goes_down_the_softmax_loss_it_is_asked_for():
    model, config = "mousavi", make_config("mousavi", TINY["mousavi"] | {"classes": 3})
    network, batch = create_model(model, config), _batch(config)
    batch = batch._replace(label=np.eye(3, dtype=np.float32)[np.arange(8) % 3])
    state = new_state(initial_variables(network), make_optimizer(model, 0.01))
    step = jax.jit(partial(train_step, network, make_optimizer(model, 0.01), exclusive=True))
    losses = []
    for _ in range(12):
        state, outcome = step(state, batch, None, SCALER, np.uint32(0))
        losses.append(float(outcome.loss))
        expected = -np.mean(np.sum(jax.nn.log_softmax(outcome.logits) * batch.label, axis=1))
        assert losses[-1] == pytest.approx(float(expected), rel=1e-4)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("model", ["rajpurkar"])
def test_dropout_depends_on_seed_and_step_alone(model):
    config = make_config(model, TINY[model])
    step, state = _start(model, config)
    batch = _batch(config)
    losses = [float(step(state, batch, None, SCALER, np.uint32(seed))[1].loss) for seed in (0, 0, 1)]
    later = float(step(state._replace(step=state.step + 1), batch, None, SCALER, np.uint32(0))[1].loss)
    assert losses[0] == losses[1]
    assert len({losses[0], losses[2], later}) == 3


def test_padding_changes_no_prediction():
    config = make_config("imle_net", TINY["imle_net"])
    network = create_model("imle_net", config)
    variables = initial_variables(network)
    predict = jax.jit(partial(predict_step, network))
    batch = _batch(config, 4)
    padded = Batch(*(np.concatenate([array, array[-1:]]) for array in batch))
    np.testing.assert_allclose(
        predict(variables, padded, SCALER)[:4], predict(variables, batch, SCALER), rtol=1e-4, atol=1e-5
    )


def test_batches_and_devices_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="--batchsize 10 does not divide over 4 devices: take 8 or 12"):
        Devices(4).check(10)
    with pytest.raises(UserError, match="--num_devices 9: there are 8"):
        Devices(9)
