"""The command for absent devices: without their compilers it says what to install; tables and steps need none."""

import json
import sys

import jax
import pytest

import benchmarks.compiled
from benchmarks.compiled import compiled_table, measure
from benchmarks.parts.absent import DEVICES, AbsentDevices, compile_absent
from imlenet_jax.models import make_config
from tests.conftest import TINY


class Here(AbsentDevices):
    """CPU devices in place of absent ones."""

    def __init__(self, count):
        super(AbsentDevices, self).__init__(count)


def _run(monkeypatch, capsys, *flags):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, flags)])
    monkeypatch.setattr(benchmarks.compiled, "prepare", lambda: None)
    with pytest.raises(SystemExit) as ended:
        benchmarks.compiled.main()
    return ended.value.code, capsys.readouterr()


def test_a_missing_compiler_is_one_sentence(monkeypatch, capsys, tmp_path):
    if jax.extend.backend.get_backend().platform != "cpu" or _has_cuda():
        pytest.skip("a compiler is here")
    code, said = _run(monkeypatch, capsys, "--out", tmp_path)
    assert code == 2 and said.err.count("\n") == 1 and "make accelerators" in said.err


def _has_cuda() -> bool:
    from importlib.util import find_spec

    return find_spec("jax_cuda13_plugin") is not None


def test_an_earlier_file_that_is_none(monkeypatch, capsys, tmp_path):
    (tmp_path / "compiled.json").write_text("[]")
    code, said = _run(monkeypatch, capsys, "--against", tmp_path / "compiled.json", "--out", tmp_path)
    assert code == 2 and str(tmp_path / "compiled.json") in said.err


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_row_of_the_table(monkeypatch, mode, tmp_path):
    config = make_config("mousavi", TINY["mousavi"])
    monkeypatch.setattr(benchmarks.compiled, "make_config", lambda model: config)
    row = measure("h100", "mousavi", mode, "float32", 8, Here(4), 3)
    assert len(row.pop("movers")) == 3
    assert row["devices"] == 4 and row["kernels"] > 0 and row["fits"]
    assert row["least_s"]["memory"] == row["bytes"] / DEVICES["h100"].bytes_per_s
    if mode == "train":
        gradients = sum(a.size for a in jax.tree.leaves(_parameters(config)))
        assert row["collectives"]["all-reduce"]["bytes"] >= 4 * gradients
    results = json.loads(json.dumps({"constants": {"h100": DEVICES["h100"]._asdict()}, "rows": [row]}))
    assert f"| `mousavi` | {mode} | float32 | 8 | 4 x h100 |" in compiled_table(results)


def _parameters(config):
    from imlenet_jax.models import abstract_variables, create_model

    return abstract_variables(create_model("mousavi", config))["params"]


def test_the_program_is_compiled_and_not_run():
    _, compiled = compile_absent("mousavi", "infer", make_config("mousavi", TINY["mousavi"]), "bfloat16", 4, Here(1))
    assert "bf16" in compiled.as_text()
