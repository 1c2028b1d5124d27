"""The steps that are measured: the project's own, compiled for given shapes."""

import time
from functools import partial
from typing import Any

import jax
import numpy as np

from imlenet_jax.data.loader import Batch
from imlenet_jax.models import Config, create_model, init_variables
from imlenet_jax.training.loop import DTYPES
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.step import Scaler, new_state, predict_step, train_step

MODES = ("train", "infer")
SEED = np.uint32(0)


class Step:
    """A training or inference step compiled for the shapes of one batch, with the state that it works on.

    Attributes:
        lowered, compiled: the program before and after XLA.
        compile_seconds: tracing, lowering and compiling.
    """

    def __init__(
        self, model: str, mode: str, config: Config, dtype: str, batch: Batch, scaler: Scaler, devices: Devices
    ):
        network = create_model(model, config, dtype=DTYPES[dtype])
        optimizer = make_optimizer(model)
        create = jax.jit(lambda key: new_state(init_variables(network, key), optimizer))
        state = devices.put_everywhere(create(jax.random.key(0)))
        self._training = mode == "train"
        if self._training:
            self._state: Any = state
            self._rest: tuple[Any, ...] = devices.put_everywhere((None, scaler, SEED))
            step = devices.compile_step(partial(train_step, network, optimizer))
        else:
            self._state, self._rest = state.variables, (devices.put_everywhere(scaler),)
            step = devices.compile_predict(partial(predict_step, network))
        start = time.perf_counter()
        self.lowered = step.lower(self._state, batch, *self._rest)
        self.compiled = self.lowered.compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, batch: Batch) -> jax.Array:
        """Start one step on a batch that lies on the devices; the loss, or the logits, to wait for."""
        if not self._training:
            return self.compiled(self._state, batch, *self._rest)
        self._state, outcome = self.compiled(self._state, batch, *self._rest)
        return outcome.loss

    @property
    def peak_bytes(self) -> int | None:
        """The memory that the program needs on each device: arguments, results and all between; None if unknown."""
        memory = self.compiled.memory_analysis()
        if memory is None:
            return None
        inputs_and_outputs = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return inputs_and_outputs + memory.temp_size_in_bytes
