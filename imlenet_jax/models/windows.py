"""A network on records that are longer than it takes: the mean over windows of its length, half of one apart."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def starts(samples: int, length: int) -> list[int]:
    """The first samples of the windows of `length`, the last of which ends where the record of so many samples does."""
    last = samples - length
    return [*range(0, last, max(1, length // 2)), last]


def apply(
    network: nn.Module, variables: dict[str, Any], x: jax.Array, exclusive: bool = False
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits `(n, classes)` and `aux` of standardised records `(n, samples, leads)`, in inference mode.

    Of longer records than the network's the logits are those of the windows' mean probability (Strodthoff et al.,
    2021, with the mean in place of the maximum), and `aux`, which is of single windows, is empty.
    """
    length: int = network.config.length  # type: ignore[attr-defined]
    if x.shape[1] == length:
        return network.apply(variables, x, train=False)  # type: ignore[return-value]
    windows = jnp.stack([x[:, start : start + length] for start in starts(x.shape[1], length)], axis=1)
    logits = network.apply(variables, windows.reshape(-1, *windows.shape[2:]), train=False)[0]  # type: ignore[index]
    logits = logits.reshape(*windows.shape[:2], -1)
    if exclusive:
        return _log_mean(jax.nn.log_softmax(logits)), {}
    return _log_mean(jax.nn.log_sigmoid(logits)) - _log_mean(jax.nn.log_sigmoid(-logits)), {}


def _log_mean(logarithms: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(logarithms, axis=1) - jnp.log(logarithms.shape[1])


def crop(signal: jax.Array, length: int, key: jax.Array) -> jax.Array:
    """`length` samples of each of the records `(n, samples, leads)`, from a start drawn for each."""
    first = jax.random.randint(key, signal.shape[:1], 0, signal.shape[1] - length + 1)
    return jax.vmap(lambda record, start: jax.lax.dynamic_slice_in_dim(record, start, length))(signal, first)
