"""What tests share: several CPU devices, tiny networks, and where the real data lies."""

import os
from importlib.metadata import version

# Before JAX starts: eight devices out of one CPU, for the tests of data parallelism; and the quickest compilation,
# since tiny networks take longer to compile than to run.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # XLA ends at a flag that it no longer has.
        "--xla_cpu_use_fusion_emitters=false" * (tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)),
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a test is not to read or write the user's

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest

hypothesis.settings.register_profile("busy machine", deadline=None)  # which no test is to fail on
hypothesis.settings.load_profile("busy machine")

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The smallest networks that still have every kind of layer: (model, configuration values).
TINY = {
    "imle_net": {"length": 100, "filters": [4, 8], "blocks_per_stage": 1, "lstm_units": 4, "attention_dim": 4},
    "mousavi": {"length": 100, "filters": [4, 4], "lstm_units": 4, "hidden": 8},
    "rajpurkar": {"length": 64, "kernel_size": 4, "filters": 4, "blocks": 4, "widen_every": 2},
    "ecgnet": {"length": 200, "filters": 4, "blocks": 4, "lstm_units": 4},
    "resnet101": {"length": 64, "filters": 4, "blocks": [1, 2]},
    "xresnet1d101": {"length": 64, "stem": [4, 8], "filters": 4, "blocks": [1, 2], "hidden": 8},
    "s4": {"length": 64, "features": 8, "states": 4, "blocks": 1},
}


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """The stored outputs of the original networks."""
    return _shared("parity")


@pytest.fixture(scope="session")
def ptbxl_folder() -> Path:
    """The first 1,987 records of PTB-XL."""
    return _shared("ptbxl-2k")


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not beside the project")
    return folder


def skip_where_kernels_do_not_lower() -> None:
    """Since jaxlib 0.10.3 a GPU's kernel is compiled while it is lowered, by jax's CUDA plugin."""
    if tuple(map(int, version("jaxlib").split(".")[:3])) > (0, 10, 2) and find_spec("jax_cuda13_plugin") is None:
        pytest.skip("this jaxlib lowers a kernel for a GPU only with jax[cuda13]")


@cache
def _initialise(network: Any) -> Callable[[jax.Array], Any]:
    from imlenet_jax.models import init_variables

    return jax.jit(partial(init_variables, network))


def initial_variables(network: Any, seed: int = 0) -> Any:
    """A network's variables before training, on the host; what draws them is compiled once for all tests."""
    return jax.device_get(_initialise(network)(jax.random.key(seed)))


def _name_and_config(request: pytest.FixtureRequest) -> tuple[str, Any]:
    from imlenet_jax.models import make_config

    return request.param, make_config(request.param, TINY[request.param])


@pytest.fixture(params=list(TINY))
def tiny(request: pytest.FixtureRequest):
    """Each network's name and tiny configuration in turn."""
    return _name_and_config(request)


@pytest.fixture(params=["imle_net", "s4"])
def tiny_kinds(request: pytest.FixtureRequest):
    """Of `tiny` two that differ most: attention, recurrence, BatchNorm; fixed state, dropout, no statistics.

    For tests of what does not depend on a network's layers.
    """
    return _name_and_config(request)


@pytest.fixture
def compiled():
    """The names of what is compiled, as it happens."""
    names = []

    def listen(event, duration, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Makes every file that grows beyond so many bytes fail, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def synthetic_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 80 synthetic records."""
    from imlenet_jax.data.prepare import prepare
    from imlenet_jax.data.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("synthetic") / "data"
    write_dataset(folder, records=80, seed=3, progress=False)
    return prepare(folder, progress=False)


@pytest.fixture
def healthy_ecg():
    """A function of (rate, seconds): a healthy ECG in mV, (samples, 12), the same heart at every rate."""
    from imlenet_jax.data.heart import dipole, healthy, sinus_rhythm, twelve_leads

    def make(rate: int = 500, seconds: float = 10) -> np.ndarray:
        rng = np.random.default_rng(4)
        heart = healthy(rng)
        rhythm = sinus_rhythm(heart, seconds, rng)
        samples = round(seconds * rate)
        signal = twelve_leads(dipole(heart, rhythm, samples, rate) @ heart.lead_vectors.T)
        eight = rng.normal(0, 0.005, (samples, 8))
        return signal + twelve_leads(eight)

    return make
