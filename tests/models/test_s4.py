"""S4 against its definition: the system step by step, in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.models import create_model, make_config
from imlenet_jax.models.long_convolution import convolve_both_ways
from imlenet_jax.models.platform import PORTABLE, as_if_on
from imlenet_jax.models.s4 import hippo, responses
from imlenet_jax.training.parallel import Devices
from tests.conftest import TINY

LENGTH = 32


def _complex(array):
    return np.asarray(array, float)[..., 0] + 1j * np.asarray(array, float)[..., 1]


def test_hippo_is_its_definition_in_another_basis():
    """A[n, k] = -sqrt((2n + 1)(2k + 1)) below the diagonal, -(n + 1) on it; B[n] = sqrt(2n + 1)."""
    w, P, B = hippo(8)
    n = np.arange(8)
    A = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1.0)
    w, P, B = (np.concatenate([a, a.conj()]) for a in (w, P, B))
    # What no basis changes: the answer C exp(A t) B for C = B*, and the eigenvalues.
    ours = np.diag(w) - np.outer(P, P.conj())
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(ours).real), np.sort(np.linalg.eigvals(A).real), atol=1e-6)
    root = np.sqrt(2 * n + 1)
    for power in range(4):
        expected = root @ np.linalg.matrix_power(A, power) @ root
        found = B.conj() @ np.linalg.matrix_power(ours, power) @ B
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_new_networks_answer_as_their_systems_do_step_by_step():
    config = make_config("s4", TINY["s4"] | {"length": LENGTH})
    network = create_model("s4", config)
    variables = jax.jit(network.init)(jax.random.key(1), jnp.zeros((1, LENGTH, 12)))
    state, C = variables["batch_stats"]["block0"], variables["params"]["block0"]["C"]
    found = responses(C, **state, length=LENGTH)
    dt = np.exp(np.asarray(state["log_dt"], float))
    assert (dt >= 0.001).all() and (dt <= 0.1).all()
    w, P, B, Q, C = (_complex(array) for array in (state["w"], state["P"][0], state["B"][0], state["Q"][0], C))
    np.testing.assert_allclose(Q, P.conj())
    for feature in range(config.features):
        full = [np.concatenate([a, a.conj()]) for a in (w[feature], P[feature], B[feature])]
        A = np.diag(full[0]) - np.outer(full[1], full[1].conj())
        inverse = np.linalg.inv(np.eye(len(A)) - dt[feature] / 2 * A)
        step, enter = inverse @ (np.eye(len(A)) + dt[feature] / 2 * A), dt[feature] * inverse @ full[2]
        for direction in range(2):
            stored = np.concatenate([C[direction, feature], C[direction, feature].conj()])
            read = stored @ np.linalg.inv(np.eye(len(A)) - np.linalg.matrix_power(step, LENGTH))
            expected = [(read @ np.linalg.matrix_power(step, t) @ enter).real for t in range(LENGTH)]
            np.testing.assert_allclose(found[direction, feature], expected, atol=2e-5)


@pytest.mark.parametrize("platform", [None, PORTABLE])
@pytest.mark.parametrize("double, tolerance", [(True, 1e-10), (False, 1e-5)])
@pytest.mark.parametrize("length", [7, 64, 150])
def test_both_ways_are_sums_over_the_past_and_the_future(length, double, tolerance, platform):
    rng = np.random.default_rng(0)
    u, forward, backward, gradient = (rng.normal(size=(*shape, length)) for shape in ((2, 3), (3,), (3,), (2, 3)))
    kernels = np.concatenate([backward[:, ::-1], forward], axis=-1)  # forward[0] is at `length`
    of_delay = kernels[:, length + np.arange(length)[:, None] - np.arange(length)]  # (feature, t, s)

    def run(*arrays):
        y, pull = jax.vjp(convolve_both_ways, *arrays)
        return y, *pull(jnp.asarray(gradient))

    with as_if_on(platform), jax.enable_x64(double):
        y, of_u, of_forward, of_backward = jax.jit(run)(
            *(jnp.asarray(array, float) for array in (u, forward, backward))
        )
    assert y.dtype == (np.float64 if double else np.float32)
    products = np.einsum("bft,bfs->fts", gradient, u)
    of_kernels = np.stack([np.trace(products, d, 2, 1) for d in range(-length, length)], axis=-1)
    for found, expected in (
        (y, np.einsum("bfs,fts->bft", u, of_delay)),
        (of_u, np.einsum("bft,fts->bfs", gradient, of_delay)),
        (np.concatenate([of_backward[:, ::-1], of_forward], axis=-1), of_kernels),
    ):
        np.testing.assert_allclose(found, expected, atol=tolerance * np.max(np.abs(expected)))


def test_each_device_transforms_its_own_records():
    """XLA's partitioner would gather all of them: the program is looked at, and the gradients compared."""
    u, kernels = (np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((8, 3, 10), (2, 3, 10)))
    devices = Devices(4)

    @jax.jit
    def gradients(u, kernels):
        return jax.grad(lambda u, kernels: jnp.sum(jnp.sin(convolve_both_ways(u, *kernels))), (0, 1))(u, kernels)

    spread = devices.put_batch(u), devices.put_everywhere(kernels)
    program = gradients.lower(*spread).compile().as_text()
    of_records = re.findall(r"= \w+\[(\d+),3,\d+\]\S* fft\(", program)
    assert of_records and set(of_records) == {"2"} and "all-gather" not in program
    for found, expected in zip(gradients(*spread), gradients(u, kernels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_networks_side_by_side_convolve_as_each_alone():
    u, kernels = (
        np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((2, 4, 3, 10), (2, 2, 3, 10))
    )
    found = jax.vmap(lambda u, kernels: convolve_both_ways(u, *kernels))(u, kernels)
    for each in range(2):
        np.testing.assert_allclose(found[each], convolve_both_ways(u[each], *kernels[each]), atol=1e-5)


def test_systems_stay_in_training_and_whole_features_drop_out():
    network = create_model("s4", make_config("s4", TINY["s4"]))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 12)), jnp.float32)
    variables = jax.jit(network.init)(jax.random.key(1), x)

    @jax.jit
    def train(variables):
        return network.apply(
            variables, x, True, mutable=["batch_stats", "intermediates"], rngs={"dropout": jax.random.key(0)},
            capture_intermediates=True,
        )[1]  # fmt: skip

    changed = train(variables)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])
    output = np.asarray(changed["intermediates"]["block0"]["__call__"][0])
    dropped = (output == 0).all(axis=-1)
    assert 0 < dropped.sum() < dropped.size and (output[~dropped] != 0).all()
