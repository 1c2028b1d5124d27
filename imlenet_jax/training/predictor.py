"""What a network says of a whole split of the data."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from tqdm.auto import tqdm

from imlenet_jax.data.loader import Split, eval_batches, prefetch
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.runtime.fetching import fetched
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.progress import compiling
from imlenet_jax.training.step import predict_step


class Predictor:
    """Logits of a whole split, compiled once."""

    def __init__(self, network: nn.Module, devices: Devices, exclusive: bool = False):
        self._devices = devices
        self._step = devices.compile_predict(partial(predict_step, network, exclusive=exclusive))
        self._compiled: set[Any] = set()

    def __call__(
        self, variables: Any, split: Split, scaler: Scaler, batchsize: int, progress: str | None = None
    ) -> np.ndarray:
        """Logits `(records, classes)` float32, in the split's order; `progress` names the bar, if one is wanted."""
        self._devices.check(batchsize)
        scaler = self._devices.put_everywhere(scaler)
        part = (jax.process_index(), jax.process_count())
        batches = prefetch(eval_batches(split, batchsize, part), self._devices.put_batch)
        total = -(-len(split.rows) // batchsize)
        with tqdm(total=total, desc=progress, unit="batch", disable=progress is None) as bar:

            def outputs() -> Iterator[jax.Array]:
                for batch in batches:
                    with compiling(bar, self._compiled, batch):
                        output = self._step(variables, batch, scaler)
                    yield output
                    bar.update()

            return np.concatenate(list(fetched(outputs())))[: len(split.rows)]
