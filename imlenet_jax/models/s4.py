"""S4, structured state spaces (Gu et al., 2022), as Mehari and Strodthoff (arXiv 2211.07579) classify ECGs with them.

Source: `code/dl_models/s4_model.py` and `s4.py` of tmehari/ssm_ecg: the bidirectional network, its convolutional form.

A block sends every feature through a linear system of its own, x' = A x + B u, y = C x + D u, once forward and once
backward in time. A is diagonal plus one product of vectors, `diag(w) - P Q*`, in steps of `exp(log_dt)`, with the
eigenvalues in conjugate pairs of which one is stored. Only C and D are trained, as by the original; the others are state
that stays, and lie beside BatchNorm's in `batch_stats`. Complex numbers are stored as two real ones, last.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imlenet_jax.models.layers import Conv, Dropout, Dtype, single, symmetric_uniform, torch_uniform
from imlenet_jax.models.long_convolution import convolve_both_ways

SLOWEST, FASTEST = np.log(0.001), np.log(0.1)  # of log_dt, per sample


@dataclass(frozen=True)
class S4Config:
    """The original's constants: features, states per feature, blocks, and the rate at which whole features drop out."""

    leads: int = 12
    length: int = 1000
    classes: int = 5
    features: int = 512
    states: int = 8
    blocks: int = 4
    dropout: float = 0.2


class StateSpace(nn.Module):
    """One linear system per feature of `(batch, features, length)`, both ways in time, then GELU and a gated mixing."""

    states: int
    dropout: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, u: jax.Array, train: bool) -> jax.Array:
        _, features, length = u.shape
        w, P, B = (jnp.asarray(_as_real(array)) for array in hippo(self.states))
        state = {
            "log_dt": lambda: jax.random.uniform(self.make_rng("params"), (features,), minval=SLOWEST, maxval=FASTEST),
            "w": lambda: jnp.tile(w, (features, 1, 1)),
            "B": lambda: jnp.tile(B, (1, features, 1, 1)),
            "P": lambda: jnp.tile(P, (1, features, 1, 1)),
            "Q": lambda: jnp.tile(P * jnp.array([1, -1], P.dtype), (1, features, 1, 1)),
        }
        system = {name: self.variable("batch_stats", name, create).value for name, create in state.items()}
        C = self.param("C", lambda key, shape: _draw(key, shape, length, system), (2, features, self.states // 2, 2))
        D = self.param("D", nn.initializers.normal(1.0), (1, features))

        forward, backward = responses(C, **system, length=length)
        forward += D[0, :, None] * (np.arange(length) == 0)  # costs no pass over the inputs of its own
        y = convolve_both_ways(single(u), forward, backward)
        y = self._drop(_gelu(y.astype(u.dtype)), train)
        kernel = self.param("kernel", torch_uniform, (features, 2 * features))
        bias = self.param("bias", symmetric_uniform(features**-0.5), (2 * features, 1))
        y = jnp.einsum("bfl,fg->bgl", y, kernel.astype(y.dtype)) + bias.astype(y.dtype)
        return self._drop(y[:, :features] * jax.nn.sigmoid(y[:, features:]), train)

    def _drop(self, y: jax.Array, train: bool) -> jax.Array:
        """Whole features, not single values: torch's `Dropout2d`."""
        return y * Dropout(self.dropout)(jnp.ones(y.shape[:2], y.dtype), train)[..., None]


@jax.checkpoint
def _gelu(y: jax.Array) -> jax.Array:
    """As torch's, by the error function, in float32; nothing but `y` is kept for the gradient."""
    exact = single(y)
    return (exact / 2 * (1 + jax.lax.erf(exact * 0.5**0.5))).astype(y.dtype)


class S4(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)`; `aux` is empty."""

    config: S4Config
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config = self.config
        encoder = Conv(
            config.features,
            1,
            kernel_init=torch_uniform,
            bias_init=symmetric_uniform(config.leads**-0.5),
            dtype=self.dtype,
            name="encoder",
        )
        x = encoder(x).swapaxes(1, 2)
        for index in range(config.blocks):
            x = x + StateSpace(config.states, config.dropout, self.dtype, name=f"block{index}")(x, train)
            norm = nn.LayerNorm(
                epsilon=1e-5,
                use_fast_variance=False,
                reduction_axes=1,
                feature_axes=1,
                dtype=self.dtype,
                name=f"norm{index}",
            )
            x = norm(x)
        x = jnp.mean(single(x), axis=2)
        bias_init = symmetric_uniform(config.features**-0.5)
        return nn.Dense(config.classes, kernel_init=torch_uniform, bias_init=bias_init, name="head")(x), {}


def responses(
    C: jax.Array, log_dt: jax.Array, w: jax.Array, B: jax.Array, P: jax.Array, Q: jax.Array, length: int
) -> jax.Array:
    """What the systems answer to an impulse, `(2, features, length)`: forward and backward.

    The generating function of the answer is evaluated at the roots of unity, by sums of `v / (z - w)` over the
    eigenvalues, and transformed back. `C` is that of the original, which already holds `I - dA^length`. With
    z = 2 (1 - omega) / (1 + omega) fractions are multiplied by 1 + omega, which is 0 at the highest frequency. What is
    known while the program is traced becomes a constant of it.
    """
    arrays = (C, log_dt, w, B, P, Q)
    xp: Any = jnp if any(isinstance(array, jax.core.Tracer) for array in arrays) else np
    C, log_dt, w, B, P, Q = map(xp.asarray, arrays)
    C, w, B, P, Q = map(_as_complex, (C, w, B, P, Q))
    omega = np.exp(-2j * np.pi / length * np.arange(length // 2 + 1))
    above, below = (xp.asarray(part, w.dtype) for part in (2 * (1 - omega), 1 + omega))
    dt = xp.exp(log_dt)[:, None]
    w = w * dt
    v = xp.concatenate([B, P])[:, None] * xp.concatenate([C, Q])
    plain, turned = v.real[..., None], (v * w.conj()).real[..., None]

    def term(n: int) -> Any:
        pole = w[:, n, None]
        return (above * plain[..., n, :] - below * turned[..., n, :]) / (
            (above - pole * below) * (above - pole.conj() * below)
        )

    r = 2 * dt * sum(map(term, range(w.shape[-1])))
    spectrum = 2 * (r[0, :-1] - below * r[0, -1] * r[1, :-1] / (1 + below * r[1, -1]))
    return jnp.asarray(xp.fft.irfft(spectrum, length), log_dt.dtype)


def hippo(states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`w`, `P` and `B`, `(states / 2,)` complex: HiPPO-LegS in the basis of its eigenvectors (Gu et al., 2020, 2022)."""
    n = np.arange(states)
    root = np.sqrt(2 * n + 1)
    A = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    P = np.sqrt(n + 0.5)
    skew = A + np.outer(P, P) + np.eye(states) / 2  # A + P P* is normal
    frequencies, vectors = np.linalg.eigh(-1j * skew)
    upper = vectors[:, frequencies > 0].conj().T
    return -0.5 + 1j * frequencies[frequencies > 0], upper @ P, upper @ root


def _as_real(array: np.ndarray) -> np.ndarray:
    return np.stack([array.real, array.imag], axis=-1).astype(np.float32)


def _as_complex(array: Any) -> Any:
    return array[..., 0] + 1j * array[..., 1]


def _both(array: jax.Array) -> jax.Array:
    """All eigenvalues (last axis), or what belongs to them, of one of each conjugate pair."""
    return jnp.concatenate([array, array.conj()], axis=-1)


def _draw(key: jax.Array, shape: tuple[int, ...], length: int, system: dict[str, jax.Array]) -> jax.Array:
    """C at random, times `I - dA^length`, so that the answer ends at `length`. dA is A in discrete time, bilinear."""
    w, P = _both(_as_complex(system["w"])), _both(_as_complex(system["P"][0]))  # (features, states)
    rate = 2 * jnp.exp(-system["log_dt"])[:, None]
    diagonal = 1 / (rate - w)
    left, right = diagonal * P, P.conj() * diagonal
    eye = jnp.eye(w.shape[-1])
    product = left[..., :, None] * right[..., None, :] / (1 + jnp.sum(P.conj() * left, -1))[:, None, None]
    forward = (rate + w)[..., None] * eye - P[..., :, None] * P.conj()[..., None, :]
    with jax.default_matmul_precision("highest"):
        power = jnp.linalg.matrix_power((diagonal[..., None] * eye - product) @ forward, length)
        C = jax.random.normal(key, shape) * np.sqrt(0.5).astype(np.float32)
        kept = jnp.einsum("cfn,fnm->cfm", _both(_as_complex(C)), eye - power)[..., : shape[-2]]
    return jnp.stack([kept.real, kept.imag], axis=-1)
