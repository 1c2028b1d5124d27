"""However a step is run (one device or several, jit or pmap, alone or in a scan), it computes the same."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.data.scaling import Scaler
from imlenet_jax.models import abstract_variables, create_model
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import Devices, Replicas
from imlenet_jax.training.step import loss_and_gradient, new_state, several_steps, standardise, train_step
from tests.conftest import initial_variables
from tests.training.test_step import SCALER, _batch

STEPS = 8


def _no_dropout(config):
    return dataclasses.replace(config, dropout=0.0) if hasattr(config, "dropout") else config


def _double(tree):
    floating = lambda a: jnp.issubdtype(a.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if floating(a) else jnp.asarray(a), tree)


def _run(model, config, variables, devices, batches, steps_per_call=1):
    """Losses, parameters and statistics after the steps."""
    optimizer = make_optimizer(model)
    step = partial(train_step, create_model(model, config, devices.axis_name), optimizer, axis_name=devices.axis_name)
    several = steps_per_call > 1
    compiled = devices.compile_step(partial(several_steps, step) if several else step)
    state = devices.put_state(new_state(variables, optimizer))
    rest = devices.put_everywhere((None, Scaler(*SCALER), np.uint32(0)))
    losses = []
    for start in range(0, len(batches), steps_per_call):
        group = batches[start : start + steps_per_call]
        batch = jax.tree.map(lambda *a: np.stack(a), *group) if several else group[0]
        batch = devices.put_batch(batch, axis=int(several))
        with jax.transfer_guard("disallow"):  # what is not put there on purpose does not move
            state, outcome = compiled(state, batch, *rest)
        losses += np.ravel(outcome.loss).tolist()
    whole = devices.get_state(state)
    return np.array(losses), jax.device_get(whole.params), jax.device_get(whole.batch_stats)


def _assert_close(found, expected, tolerance):
    """Each array, relative to the larger of its norm and 1e-4 of that of all: some are zero but for rounding."""
    norm = np.sqrt(sum(np.sum(np.square(array)) for array in jax.tree.leaves(expected)))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-4 * norm)


def test_steps_in_float64_are_the_same(tiny):
    model, config = tiny[0], _no_dropout(tiny[1])
    variables = initial_variables(create_model(model, config))
    with jax.enable_x64(True):
        variables = jax.device_get(_double(variables))  # on the host, where no step can use them up
        batches = [_double(_batch(config, 8, seed)) for seed in range(STEPS)]
        losses, *expected = _run(model, config, variables, Devices(1), batches)
        assert len(set(losses)) == STEPS
        replicas = [(Replicas(4), 1)] * (model in ("imle_net", "s4"))  # pmap does not depend on the layers
        for devices, steps_per_call in (*replicas, (Devices(8), 4)):
            found_losses, *found = _run(model, config, variables, devices, batches, steps_per_call)
            np.testing.assert_allclose(found_losses, losses, rtol=1e-9)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                # The gradient of a bias before BatchNorm is zero but for rounding, which Adam divides by as little
                # as 1e-8: such biases wander about zero, and nothing can be relative to them.
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_first_step_in_float32_is_the_same(tiny_kinds):
    model, config = tiny_kinds[0], _no_dropout(tiny_kinds[1])
    network, batch = create_model(model, config), _batch(config, 8)
    state = new_state(initial_variables(network), make_optimizer(model))

    def gradient(state, batch):
        return loss_and_gradient(network, state, standardise(batch, SCALER), batch.label, jax.random.key(0))

    results = []
    for count in (1, 4):
        devices = Devices(count)
        results.append(jax.device_get(jax.jit(gradient)(devices.put_everywhere(state), devices.put_batch(batch))))
    ((one, (_, statistics)), expected), ((several, (_, found_statistics)), found) = results
    np.testing.assert_allclose(several, one, rtol=1e-5)
    _assert_close(found_statistics, statistics, 1e-5)
    _assert_close(found, expected, 1e-3)


def test_rows_of_records_on_the_device_are_the_batch_itself():
    config = _no_dropout(create_model("mousavi").config)
    config = dataclasses.replace(config, length=100, filters=(4, 4), lstm_units=4, hidden=8)
    network, optimizer, devices = create_model("mousavi", config), make_optimizer("mousavi"), Devices(4)
    state = jax.device_get(new_state(initial_variables(network), optimizer))
    records, rows = _batch(config, 24), np.array([3, 1, 20, 7, 7, 0, 23, 12], np.int32)
    batch = jax.tree.map(lambda array: array[rows], records)
    step = devices.compile_step(partial(train_step, network, optimizer))
    constants = devices.put_everywhere((Scaler(*SCALER), np.uint32(0)))
    outcomes = []
    for fed, stored in ((batch, None), (rows, records)):
        fed, stored = devices.put_batch(fed), devices.put_everywhere(stored)
        placed = devices.put_state(state)
        with jax.transfer_guard("disallow"):  # what is not put there on purpose does not move
            _, outcome = step(placed, fed, stored, *constants)
        outcomes.append(outcome)
    np.testing.assert_array_equal(outcomes[0].logits, outcomes[1].logits)


def test_the_state_is_donated(tiny_kinds):
    model, config = tiny_kinds
    network, optimizer, devices = create_model(model, config), make_optimizer(model), Devices(1)
    state = devices.put_state(new_state(initial_variables(network), optimizer))
    rest = devices.put_everywhere((None, Scaler(*SCALER), np.uint32(0)))
    compiled = (
        devices.compile_step(partial(train_step, network, optimizer)).lower(state, _batch(config), *rest).compile()
    )
    aliased = compiled.memory_analysis().alias_size_in_bytes
    assert aliased == sum(array.nbytes for array in jax.tree.leaves(state))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_bfloat16_is_for_convolutions_and_hidden_layers_only(tiny, dtype):
    model, config = tiny
    network = create_model(model, config, dtype=dtype)
    x = jax.ShapeDtypeStruct((4, config.length, config.leads), jnp.float32)
    variables = abstract_variables(network)
    apply = partial(network.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)})
    outputs = jax.eval_shape(apply, variables, x)
    assert {a.dtype for a in jax.tree.leaves((variables, outputs))} == {jnp.dtype(jnp.float32)}
    text = jax.jit(network.apply).lower(variables, x).as_text()
    assert ("bf16" in text) == (dtype is not None)
