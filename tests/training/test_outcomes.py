"""Outcomes are fetched in groups, late, and come out as if each had been read at once."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.classifier import Classifier
from imlenet_jax.data.loader import select
from imlenet_jax.data.shards import open_shards
from imlenet_jax.runtime.fetching import AHEAD, fetched
from imlenet_jax.training import outcomes as module
from imlenet_jax.training.outcomes import GROUP, Outcomes
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.step import Outcome, Unfinished
from imlenet_jax.training.stopping import NotFinite
from imlenet_jax.training.trainer import Trainer
from tests.checkpoints.test_checkpoints import _meta
from tests.training.test_compilations import CONFIG


def _outcome(number, steps=None, records=3):
    """The outcome of a call, of one step or of several."""
    shape = () if steps is None else (steps,)
    generator = np.random.default_rng(number)
    loss, logits = generator.random(shape, np.float32), generator.random((*shape, records, 5), np.float32)
    return Outcome(jnp.asarray(loss), jnp.asarray(logits))


def _fail(loss, step):
    return AssertionError(f"{loss} at {step}")


@pytest.mark.parametrize("before", [0, 5])
def test_joined_as_if_each_had_been_read_at_once(before):
    calls = [_outcome(number, *shape) for number, shape in enumerate([()] * 100 + [(4,)] * 100 + [(2,), (None, 1)])]
    losses = np.concatenate([np.ravel(call.loss) for call in calls])
    logits = np.concatenate([np.reshape(call.logits, (-1, 5)) for call in calls])
    first = Unfinished(losses[:before], logits[: 3 * before]) if before else None
    outcomes = Outcomes(first, _fail)
    for number, call in enumerate(calls[before:]):
        outcomes.add(call)
        if number in (10, 150):
            outcomes.read()
            assert len(outcomes.joined().losses) == sum(each.loss.size for each in calls[: before + number + 1])
    outcomes.read()
    np.testing.assert_array_equal(outcomes.joined().losses, losses)
    np.testing.assert_array_equal(outcomes.joined().logits, logits)
    assert outcomes.joined().losses.dtype == outcomes.joined().logits.dtype == np.float32
    assert outcomes.mean_loss == pytest.approx(np.mean(losses, dtype=float), rel=1e-12)


def test_nothing_is_fetched_before_its_group_is_full_or_its_time_has_come(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 1e9)
    outcomes, call = Outcomes(None, _fail), _outcome(0)
    assert np.isnan(outcomes.mean_loss)
    told = [outcomes.add(call) for _ in range(2 * GROUP + AHEAD)]
    assert [number for number, fetched in enumerate(told) if fetched] == [GROUP + AHEAD - 1, 2 * GROUP + AHEAD - 1]
    monkeypatch.setattr(module, "SECONDS", 0.01)
    time.sleep(0.02)
    assert outcomes.add(call) and not outcomes.add(call)


@pytest.mark.parametrize("bad", [0, 3, GROUP - 1, GROUP, 2 * GROUP - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_loss_that_is_no_number_is_named(bad, value):
    outcomes = Outcomes(None, _fail)

    def run():
        for number in range(2 * GROUP):
            loss = jnp.float32(value if number >= bad else 0.5)
            outcomes.add(Outcome(loss, jnp.zeros((3, 5))))
        outcomes.read()

    with pytest.raises(AssertionError, match=rf"{value} at {bad}$"):
        run()


@pytest.fixture
def train(synthetic_shards):
    return select(open_shards(synthetic_shards), tuple(range(1, 9)), "training")


@pytest.mark.parametrize("on_device", [True, False])
def test_training_names_the_records_of_the_first_bad_step(train, on_device):
    trainer = Trainer(_meta("mousavi", CONFIG), train, Recipe(batchsize=8, data_on_device=on_device), Devices(1))
    calls = []

    def step(state, batch, *rest):
        calls.append(batch)
        return state, Outcome(jnp.float32(np.nan if len(calls) >= 4 else 0.5), jnp.zeros((8, 5)))

    trainer._step = step
    with pytest.raises(NotFinite, match="the loss became nan in epoch 2, step 3") as error:
        trainer.epoch(trainer.start(), 2)
    np.testing.assert_array_equal(error.value.rows, trainer._order(2)[24:32])
    if on_device:
        np.testing.assert_array_equal(error.value.rows, calls[3])


def test_results_are_fetched_while_others_are_computed():
    events = []

    class Result:
        def __init__(self, number):
            self.number = number
            events.append(("begun", number))

        def __array__(self, dtype=None, copy=None):
            events.append(("fetched", self.number))
            return np.array(self.number)

    assert list(fetched(Result(number) for number in range(6))) == list(range(6))
    for number in range(6 - AHEAD):
        assert events.index(("begun", number + AHEAD)) < events.index(("fetched", number))
        assert number + AHEAD + 1 >= 6 or events.index(("fetched", number)) < events.index(
            ("begun", number + AHEAD + 1)
        )


def test_a_classifier_begins_batches_before_it_fetches_results():
    meta = _meta("mousavi", CONFIG)
    network = Classifier(meta, {})
    events = []

    class Result:
        def __init__(self, batch):
            self.batch = batch

        def __array__(self, dtype=None, copy=None):
            events.append("fetched")
            return np.asarray(self.batch)[:, 0, :5]

    def apply(variables, batch):
        assert isinstance(batch, jax.Array) and batch.shape == (4, *signals.shape[1:])
        events.append("begun")
        return Result(batch), {}

    network._apply = apply
    config = network.network.config
    signals = np.random.default_rng(0).normal(0, 0.3, (18, config.length, config.leads)).astype(np.float32)
    np.testing.assert_array_equal(network.predict_proba(signals, batchsize=4), signals[:, 0, :5])
    assert events == ["begun"] * 3 + ["fetched", "begun"] * 2 + ["fetched"] * 3
