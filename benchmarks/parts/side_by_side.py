"""The original networks beside ours: run in a process of their own, timed in turn with ours."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imlenet_jax.errors import UserError
from imlenet_jax.models import entry

PROGRAM = Path(__file__).with_name("reference.py")
PACKAGES = {"keras": ("numpy", "tensorflow", "tf_keras"), "torch": ("numpy", "torch")}
IDLE_SECONDS = 0.25  # threads of the other side's frameworks wait in a loop for a while before they sleep

Turn = Callable[[float], list[float]]


IN_REFERENCE = ("imle_net", "mousavi", "rajpurkar", "ecgnet", "resnet101")
"""The networks that the original repository holds."""


def check_reference(repository: Path, python: str, models: list[str], dtypes: list[str]) -> None:
    """Refuse a folder that is no clone of the original repository, or an interpreter that lacks what it needs."""
    if not (repository / "models" / "IMLENet.py").is_file():
        raise UserError(f"--reference {repository} has no models/IMLENet.py: name a clone of likith012/IMLE-Net")
    if "float32" not in dtypes:
        raise UserError("--reference is measured beside float32 only: add it to --dtype")
    needed = sorted(
        {package for model in models if model in IN_REFERENCE for package in PACKAGES[entry(model).framework]}
    )
    list_missing = "import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])"
    try:
        done = subprocess.run([python, "-c", list_missing, *needed], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"--reference_python {python} is no Python that can be run") from None
    if done.stdout.strip():
        raise UserError(f"--reference_python {python} lacks {done.stdout.strip()}: see benchmarks/README.md")


class Original:
    """An original network in a process of its own, idle but for the turns that it is asked for.

    `x` is (batch, 1000, 12) float32, standardised; `y` is (batch, 5) float32. `framework` says what it runs on. `how` is
    for torch: "bfloat16" and "compile".

    Raises:
        UserError: the process ended; the message has the last line of what it said.
    """

    def __init__(self, python: str, repository: Path, model: str, x: np.ndarray, y: np.ndarray, *how: str):
        self._python, self._model = python, model
        self._folder = tempfile.TemporaryDirectory()
        data = Path(self._folder.name) / "data.npz"
        np.savez(data, x=x, y=y)
        self._log = open(Path(self._folder.name) / "log", "w+")  # noqa: SIM115
        command = [python, str(PROGRAM), str(repository.resolve()), model, str(data), *how]
        # Flags for our XLA would end tensorflow, and our modules are not for the other interpreter.
        environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "PYTHONPATH")}
        environment |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        try:
            self.framework: str = self._answer()["ready"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Original":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def turn(self, mode: str, seconds: float) -> list[float]:
        """Seconds of single steps, one after the other until `seconds` have passed."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # that there is no answer says more
            print(json.dumps({"mode": mode, "seconds": seconds}), file=self._process.stdin, flush=True)
        return self._answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            words = self._log.read().split("\n")
            last = next((line.strip() for line in reversed(words) if line.strip()), "it says nothing")
            raise UserError(f"the original {self._model} ended under --reference_python {self._python}: {last}")
        return json.loads(line)


def time_in_turn(sides: list[Turn], turns: int, seconds: float) -> list[list[float]]:
    """The times of each side, which take turns of `seconds`."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(turns):
        for side, kept in zip(sides, times, strict=True):
            if len(sides) > 1:
                time.sleep(IDLE_SECONDS)
            kept += side(seconds)
    return times
