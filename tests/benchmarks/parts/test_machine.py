"""Where figures were taken."""

import json
import sys

from benchmarks.parts.machine import command, cpu_model, machine
from imlenet_jax.version import __version__


def test_a_machine_says_when_with_what_and_by_which_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--out", "a b"])
    found = machine("benchmarks.parity")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["command"] == "python -m benchmarks.parity --out 'a b'"
    assert found["versions"]["imlenet_jax"] == __version__ and found["versions"]["jaxlib"]
    assert "(cpu)" in found["devices"] and found["cores"] >= 1


def test_a_command_is_recorded_without_the_places_of_this_machine():
    assert command("benchmarks.parity", ["--golden", "/home/me/parity", "--model", "a b"]) == (
        "python -m benchmarks.parity --golden parity --model 'a b'"
    )


def test_the_processors_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name\t: Some CPU: fast\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU: fast"
    assert cpu_model(tmp_path / "absent")
