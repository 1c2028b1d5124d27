"""What is read off compiled programs, on small stored ones: no compiler for an absent device is needed."""

import pytest

from benchmarks.parts.cost import program_cost
from benchmarks.parts.program import collectives, differences, estimated_cycles, library_calls, movers

GPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (x: bf16[100,8]) -> bf16[100,8] {
  %x = bf16[100,8]{1,0} parameter(0)
  ROOT %twice = bf16[100,8]{1,0} add(%x, %x)
}

ENTRY %main (p: bf16[100,8], g: f32[64]) -> (bf16[100,8], f32[64]) {
  %p = bf16[100,8]{1,0} parameter(0)
  %g = f32[64]{0} parameter(1)
  %fusion.1 = bf16[100,8]{1,0} fusion(%p), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/IMLENet/stem/add"}
  %conv = (bf16[100,8]{1,0}, u8[0]{0}) custom-call(%fusion.1), custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/IMLENet/stem/conv"}
  %lstm = f32[20,8]{1,0} custom-call(%g), custom_call_target="__gpu$xla.gpu.triton"
  %all-reduce-start = f32[64]{0} all-reduce-start(%g), to_apply=%add
  %all-reduce-done = f32[64]{0} all-reduce-done(%all-reduce-start)
  %out = bf16[100,8]{1,0} get-tuple-element(%conv), index=0
  ROOT %result = (bf16[100,8]{1,0}, f32[64]{0}) tuple(%out, %all-reduce-done)
}
"""

TPU = """HloModule jit_step

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8]{0} get-tuple-element(%state), index=1
  %next = s32[] add(%i, %i), backend_config={"estimated_cycles":"2"}
  %y = f32[8]{0} add(%x, %x), backend_config={"estimated_cycles":"10"}
  ROOT %both = (s32[], f32[8]) tuple(%next, %y)
}

%condition (state: (s32[], f32[8])) -> pred[] {
  %state = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]) parameter(0)
  %copy = (s32[], f32[8]) copy(%state), backend_config={"estimated_cycles":"100"}
  ROOT %loop = (s32[], f32[8]) while(%copy), condition=%condition, body=%body
}
"""


def test_messages_between_devices_are_counted_once():
    assert collectives(GPU) == {"all-reduce": {"count": 1, "bytes": 256, "largest": 256}}
    assert collectives(TPU) == {}


def test_library_calls():
    assert library_calls(GPU) == {"__cudnn$convForward": 1, "__gpu$xla.gpu.triton": 1}


def test_kernels_are_fusions_calls_and_messages():
    cost = program_cost(GPU)
    assert cost.kernels == 4
    assert cost.bytes == 2 * 1600 + 2 * 1600 + (256 + 640) + 2 * 256


def test_cycles_count_a_loop_as_often_as_it_runs():
    assert estimated_cycles(TPU) == 100 + 7 * 12
    assert estimated_cycles(GPU) is None


def test_what_moves_most_comes_first_with_its_layer():
    first, second, third = movers(GPU, 3)
    assert {first.layer, second.layer} == {"IMLENet/stem/add", "IMLENet/stem/conv"}
    assert (first.bytes, second.bytes, third.bytes, third.name) == (3200, 3200, 896, "lstm")


def _row(**changes):
    row = {"target": "h100", "model": "ecgnet", "mode": "train", "dtype": "float32", "batchsize": 32, "devices": 1}
    return row | {"bytes": 2e9, "kernels": 17733, "peak_bytes": 1e9, "cycles": None} | changes


@pytest.mark.parametrize(
    "after, said", [({"kernels": 706}, "kernels 17,733 -> 706"), ({}, "the same"), ({"bytes": 1.5e9}, "GB 2 -> 1.5")]
)
def test_what_changed_since_an_earlier_run(after, said):
    assert differences([_row(**after)], [_row(), _row(mode="infer")])[0][-1] == said


def test_a_program_that_was_not_there_before_is_left_out():
    assert differences([_row(devices=8)], [_row()]) == []
