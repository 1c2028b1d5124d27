"""The steps that are measured: the project's own, compiled for given shapes."""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from imlenet_jax.data.loader import Batch
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.models import Config, create_model, init_variables
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.recipe import DTYPES
from imlenet_jax.training.step import new_state, predict_step, several_steps, train_step

MODES = ("train", "infer")
SEED = np.uint32(0)


def make_step(
    model: str, mode: str, config: Config, dtype: str, devices: Devices, steps_per_call: int = 1
) -> tuple[Callable[..., Any], Callable[[jax.Array], Any], bool]:
    """A jitted step, what draws the state that it works on from a key, and whether it trains."""
    network, optimizer = create_model(model, config, dtype=DTYPES[dtype]), make_optimizer(model)
    if mode == "train":
        step = partial(train_step, network, optimizer)
        compiled = devices.compile_step(step if steps_per_call == 1 else partial(several_steps, step))
        return compiled, lambda key: new_state(init_variables(network, key), optimizer), True
    return devices.compile_predict(partial(predict_step, network)), partial(init_variables, network), False


@cache
def initial_variables(model: str, config: Config) -> Any:
    """A network's variables before training, on the host; drawn once, since that takes as long as to compile a step."""
    return jax.device_get(jax.jit(partial(init_variables, create_model(model, config)))(jax.random.key(0)))


class Step:
    """A training or inference step compiled for the shapes of one batch, with the state that it works on.

    With `steps_per_call`, a call trains on as many batches, stacked along a first axis.

    Attributes:
        state: what it works on; training makes another of it.
        lowered, compiled: the program before and after XLA, which takes `options`.
        compile_seconds: tracing, lowering and compiling.
    """

    def __init__(
        self,
        model: str,
        mode: str,
        config: Config,
        dtype: str,
        batch: Batch,
        scaler: Scaler,
        devices: Devices,
        steps_per_call: int = 1,
        options: dict[str, Any] | None = None,
    ):
        step, _, self._training = make_step(model, mode, config, dtype, devices, steps_per_call)
        variables = initial_variables(model, config)
        state = new_state(variables, make_optimizer(model)) if self._training else variables
        self.state: Any = devices.put_everywhere(state)
        rest = (None, scaler, SEED) if self._training else (scaler,)
        self._rest: tuple[Any, ...] = devices.put_everywhere(rest)
        start = time.perf_counter()
        self.lowered = step.lower(self.state, batch, *self._rest)
        self.compiled = self.lowered.compile(options)
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, batch: Batch) -> jax.Array:
        """Start one step on a batch that lies on the devices; the loss, or the logits, to wait for."""
        if not self._training:
            return self.compiled(self.state, batch, *self._rest)
        self.state, outcome = self.compiled(self.state, batch, *self._rest)
        return outcome.loss

    @property
    def peak_bytes(self) -> int | None:
        """See `peak_bytes`."""
        return peak_bytes(self.compiled)


def peak_bytes(compiled: jax.stages.Compiled) -> int | None:
    """The memory that a program needs on each device: arguments, results and all between; None if unknown."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    inputs_and_outputs = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return inputs_and_outputs + memory.temp_size_in_bytes
