"""JAX that does not start ends in one sentence, and an accelerator that it does not use is named."""

import os
import subprocess
import sys

import jax
import pytest

import imlenet_jax.runtime.start as start
from experiments.cli import Parser, execute
from imlenet_jax.errors import UserError
from imlenet_jax.training.parallel import print_devices


def _run(module, *flags, **environment):
    command = [sys.executable, "-m", module, *flags]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "flags", "environment", "sentence"),
    [
        (
            "experiments.train",
            [],
            {"JAX_PLATFORMS": "nonsense"},
            "JAX_PLATFORMS=nonsense (Backend 'nonsense' is not in",
        ),
        ("experiments.test", [], {"JAX_PLATFORMS": "tpu"}, "JAX_PLATFORMS=tpu ("),
        (
            "experiments.test",
            [],
            {"JAX_ENABLE_X64": "perhaps"},
            "JAX cannot be imported (invalid truth value 'perhaps'",
        ),
        ("benchmarks.parity", ["--golden", "."], {"JAX_ENABLE_X64": "perhaps"}, "JAX cannot be imported ("),
    ],
)
def test_jax_that_does_not_start_is_one_sentence(module, flags, environment, sentence):
    done = _run(module, *flags, **environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: JAX ") and sentence in done.stderr and done.stderr.count("\n") == 1


def test_a_gpu_that_is_asked_for_and_not_there(tmp_path):
    if any(os.path.exists(path) for path in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")):
        pytest.skip("there is one")
    done = _run("experiments.train", JAX_PLATFORMS="cuda")
    assert done.returncode == 2
    assert done.stderr == (
        "error: JAX does not start with JAX_PLATFORMS=cuda (it sees no NVIDIA GPU): leave that out or choose cpu, "
        "or see with nvidia-smi why there is none\n"
    )


def test_a_library_user_gets_a_user_error(tmp_path):
    program = f"import imlenet_jax; imlenet_jax.load({str(tmp_path)!r})"
    environment = os.environ | {"JAX_PLATFORMS": "nonsense"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "imlenet_jax.errors.UserError: JAX does not start with JAX_PLATFORMS=nonsense" in done.stderr


def test_other_errors_are_not_explained(monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'mine'")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(RuntimeError, match="'mine'"):
        start.devices()
    with pytest.raises(AssertionError):
        execute(Parser(), _assert, [])


def _assert(_):
    raise AssertionError


def _from_jax(error):
    """The error as if it came out of JAX's start."""
    code = compile("def backends(error):\n    raise error\n", "/lib/jax/_src/xla_bridge.py", "exec")
    space = {}
    exec(code, space)
    try:
        space["backends"](error)
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    ("platforms", "error", "sentence"),
    [
        ("", RuntimeError("Unable to initialize backend 'rocm': no driver. (you may need to uninstall the failing)"),
         "JAX does not start (no driver): set JAX_PLATFORMS=cpu to run on the CPU"),
        ("cuda", RuntimeError("Unable to initialize backend 'cuda': INTERNAL: out of memory\nand more"),
         "JAX does not start with JAX_PLATFORMS=cuda (INTERNAL: out of memory): leave that out or choose cpu, "
         "or pip install 'imlenet_jax[cuda]' for it"),
        ("x", ValueError(), "JAX does not start with JAX_PLATFORMS=x (ValueError): leave that out or choose cpu"),
    ],
)  # fmt: skip
def test_sentences(monkeypatch, platforms, error, sentence):
    monkeypatch.setattr(start, "_wanted_platforms", lambda: platforms)
    assert start.explain(_from_jax(error)) == sentence
    monkeypatch.setattr(jax, "devices", lambda: (_ for _ in ()).throw(_from_jax(error)))
    with pytest.raises(UserError, match=r"^JAX does not start"):
        start.devices()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes files of a machine that has nothing else."""
    monkeypatch.setattr(start, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def make(path, text=""):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)

    return make


def test_no_accelerator(machine):
    machine("dev/accel/accel0")  # not a TPU
    machine("sys/bus/pci/devices/1/vendor", "0x1ae0\n")
    machine("sys/bus/pci/devices/1/device", "0x0042\n")  # Google's network card
    machine("sys/bus/pci/devices/2/vendor", "0x1ae0\n")
    machine("bin/nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert start.unseen_accelerator() == ""


NVIDIA = "an NVIDIA GPU is in this machine, but JAX runs on the CPU: "
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Jul 1\nGCC version: 12.2.0\n"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"dev/nvidia0": ""}, NVIDIA + "pip install 'imlenet_jax[cuda]' to use it"),
        ({"bin/nvidia-smi": "#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n"}, NVIDIA + "pip install 'imlenet_jax[cuda]' to use it"),
        ({"proc/driver/nvidia/version": DRIVER.format("580.65.06")}, NVIDIA + "pip install 'imlenet_jax[cuda]' to use it"),
        ({"proc/driver/nvidia/version": DRIVER.format("550.54")},
         NVIDIA + "pip install 'jax[cuda12]' to use it (its driver 550 is too old for CUDA 13)"),
        ({"proc/driver/nvidia/version": DRIVER.replace("Kernel Module", "Open Kernel Module for x86_64").format("570.1")},
         NVIDIA + "pip install 'jax[cuda12]' to use it (its driver 570 is too old for CUDA 13)"),
        ({"dev/accel0": ""}, "a TPU is in this machine, but JAX runs on the CPU: pip install 'imlenet_jax[tpu]' to use it"),
        ({"sys/bus/pci/devices/1/vendor": "0x1ae0\n", "sys/bus/pci/devices/1/device": "0x0063\n"},
         "a TPU is in this machine, but JAX runs on the CPU: pip install 'imlenet_jax[tpu]' to use it"),
    ],
)  # fmt: skip
def test_an_accelerator_that_is_not_used_is_named(machine, monkeypatch, capsys, files, line):
    for path, text in files.items():
        machine(path, text)
    assert start.unseen_accelerator() == line
    monkeypatch.delenv("JAX_PLATFORMS")
    print_devices()
    assert capsys.readouterr().err == f"warning: {line}\n"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # which was wanted
    print_devices()
    assert capsys.readouterr().err == ""


def test_cuda_that_failed_to_start(machine, monkeypatch):
    machine("dev/nvidia0")
    monkeypatch.setattr("jax._src.xla_bridge._backend_errors", {"cuda": "no supported devices found.\nmore"})
    assert start.unseen_accelerator() == NVIDIA + "CUDA failed to start (no supported devices found)"
