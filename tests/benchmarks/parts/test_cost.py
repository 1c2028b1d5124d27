"""The counts against hand counts: single operations, loops, strided convolutions and a whole network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.parts.cost import calls_product_library, meeting_pairs, program_cost, step_cost
from imlenet_jax.models import create_model, init_variables, make_config
from imlenet_jax.models.convolution import THIN
from tests.conftest import TINY


def both(function, *arrays):
    """The costs before and after XLA."""
    lowered = jax.jit(function).lower(*arrays)
    return program_cost(lowered.as_text(dialect="hlo")), program_cost(lowered.compile().as_text())


def convolve(x, kernel, stride=1, padding="VALID", **options):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC"), **options
    )


def test_matrix_product():
    for cost in both(jnp.matmul, np.zeros((3, 5), np.float32), np.zeros((5, 7), np.float32)):
        assert cost.flops == 2 * 3 * 5 * 7
        assert cost.bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7)
        assert cost.kernels == 1


def test_batched_matrix_product_with_two_summed_axes():
    product = partial(jnp.einsum, "bijk,bjkl->bil")
    for cost in both(product, np.zeros((2, 3, 4, 5), np.float32), np.zeros((2, 4, 5, 6), np.float32)):
        assert cost.flops == 2 * 2 * 3 * 6 * (4 * 5)


def test_convolution_without_padding():
    for cost in both(convolve, np.zeros((2, 10, 3), np.float32), np.zeros((4, 3, 5), np.float32)):
        assert cost.flops == 2 * 2 * 7 * 4 * 3 * 5


def test_zeros_of_padding_are_no_work():
    same = partial(convolve, padding="SAME")
    for cost in both(same, np.zeros((1, 4, 1), np.float32), np.zeros((3, 1, 1), np.float32)):
        assert cost.flops == 2 * (2 + 3 + 3 + 2)


def test_groups_multiply_only_their_own_features():
    grouped = partial(convolve, feature_group_count=2)
    cost, _ = both(grouped, np.zeros((1, 6, 4), np.float32), np.zeros((3, 2, 8), np.float32))
    assert cost.flops == 2 * 4 * 3 * 2 * 8


def test_gradients_of_a_strided_convolution_take_as_many_multiplications_as_itself():
    x, kernel = np.zeros((2, 11, 3), np.float32), np.zeros((4, 3, 5), np.float32)
    forward, _ = both(partial(convolve, stride=2), x, kernel)

    def loss(x, kernel):
        return jnp.sum(convolve(x, kernel, stride=2) ** 2)

    for position in (0, 1):
        # The loss itself needs the forward convolution.
        gradient, _ = both(jax.grad(loss, position), x, kernel)
        assert gradient.flops == 2 * forward.flops


def test_a_loop_counts_as_often_as_it_runs():
    def recurrence(x, weight):
        return jax.lax.scan(lambda state, _: (jnp.tanh(state @ weight), None), x, length=37)[0]

    x, weight = np.zeros((8, 16), np.float32), np.zeros((16, 16), np.float32)
    for cost in both(recurrence, x, weight):
        assert cost.flops == 37 * 2 * 8 * 16 * 16
        assert cost.kernels >= 37
        assert cost.unknown_loops == 0


def test_a_loop_reads_only_the_slice_that_it_takes():
    def total(rows):
        return jax.lax.scan(lambda state, row: (jnp.sin(state + row), None), jnp.zeros(1000), rows)[0]

    _, cost = both(total, np.zeros((64, 1000), np.float32))
    row = 4 * 1000
    assert 64 * 3 * row <= cost.bytes <= 64 * 8 * row  # whole arrays would be 64 * 64 rows


def test_a_loop_of_unknown_length_is_said_to_be_one():
    def halve(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x / 2, x)

    for cost in both(halve, np.zeros(4, np.float32)):
        assert cost.unknown_loops == 1


def test_both_branches_are_not_added():
    def choose(yes, x):
        return jax.lax.cond(yes, lambda x: x @ x, lambda x: x @ x @ x, x)

    cost, _ = both(choose, np.array(True), np.zeros((4, 4), np.float32))
    assert cost.flops == 2 * (2 * 4**3)


@given(*(st.integers(1, 6) for _ in range(4)), st.integers(0, 5), st.integers(1, 3), st.integers(1, 3))
def test_meeting_pairs_are_those_of_a_loop(samples, positions, taps, stride, pad, lhs_dilate, rhs_dilate):
    dilated = {index * lhs_dilate for index in range(samples)}
    expected = sum(
        position * stride + tap * rhs_dilate - pad in dilated for position in range(positions) for tap in range(taps)
    )
    assert meeting_pairs(samples, positions, taps, stride, pad, lhs_dilate, rhs_dilate) == expected


def test_forward_pass_of_imle_net():
    """By hand, from the published layers: windows, convolutions, attention, LSTM, head."""
    # Wider than the convolutions that a CPU computes over pairs of positions, with zeros in their kernels.
    config = make_config("imle_net", TINY["imle_net"] | {"filters": [THIN + 1, THIN + 3]})
    batch, leads, windows = 3, 12, config.length // config.window
    network = create_model("imle_net", config)
    variables = jax.eval_shape(partial(init_variables, network), jax.random.key(0))
    x = jax.ShapeDtypeStruct((batch, config.length, leads), np.float32)
    traced = jax.jit(network.apply).trace(variables, x)

    multiplications = same(config.window, 1, config.kernel_size) * config.filters[0]
    length, features = config.window, config.filters[0]
    for stage, filters in enumerate(config.filters):
        stride = 2 if stage else 1
        multiplications += same(length, stride, config.kernel_size) * features * filters
        if stride == 2:
            multiplications += same(length, stride, 1) * features * filters
        length, features = -(-length // stride), filters
        multiplications += same(length, 1, config.kernel_size) * filters * filters
    multiplications *= batch * leads * windows
    multiplications += batch * leads * windows * attention(length, features, config.attention_dim)
    units = config.lstm_units
    multiplications += batch * leads * windows * 2 * (features + units) * 4 * units
    multiplications += batch * leads * attention(windows, 2 * units, config.attention_dim)
    multiplications += batch * attention(leads, 2 * units, config.attention_dim)
    multiplications += batch * 2 * units * config.classes

    on_tpu = traced.lower(lowering_platforms=("tpu",))
    assert program_cost(on_tpu.as_text(dialect="hlo")).flops == 2 * multiplications
    lowered = traced.lower()
    cost, counted_in = step_cost(lowered, lowered.compile())
    assert counted_in == "compiled"
    # On a CPU, strided kernels contain zeros, and XLA may write a product that is a mere sum as one.
    assert cost.flops == pytest.approx(2 * multiplications, rel=0.05)


def same(length, stride, taps):
    """Multiplications per pair of features of a convolution with 'same' padding."""
    outputs = -(-length // stride)
    before = max((outputs - 1) * stride + taps - length, 0) // 2
    return sum(0 <= out * stride + tap - before < length for out in range(outputs) for tap in range(taps))


def attention(positions, features, dim):
    """Multiplications per pooled sequence: x W, then the weighted sum; the scores are summed value by value."""
    return positions * (features * dim + features)


def test_a_library_call_makes_the_lowered_program_count():
    lowered = jax.jit(jnp.matmul).lower(np.zeros((3, 5), np.float32), np.zeros((5, 7), np.float32))

    class OnGPU:
        def as_text(self):
            return (
                "HloModule m\n\nENTRY %main (a: f32[3,5], b: f32[5,7]) -> f32[3,7] {\n"
                "  %a = f32[3,5]{1,0} parameter(0)\n  %b = f32[5,7]{1,0} parameter(1)\n"
                '  ROOT %c = f32[3,7]{1,0} custom-call(%a, %b), custom_call_target="__cublas$gemm"\n}\n'
            )

    assert calls_product_library(OnGPU().as_text())
    cost, counted_in = step_cost(lowered, OnGPU())
    assert (cost.flops, counted_in) == (2 * 3 * 5 * 7, "lowered")
    assert cost.bytes == 4 * (15 + 35 + 21)
