"""Weights by rule, the same for an original and for ours: every array has a generator of its own, seeded by its name."""

import zlib

import numpy as np


def draw(seed: int, name: str, shape: tuple[int, ...], batch_norm: bool) -> np.ndarray:
    """One array float32 by its state-dict name, from a generator seeded with (seed, crc32 of the name).

    `batch_norm` says that it belongs to a normalisation. The systems of S4 are drawn to be stable: eigenvalues left of the
    imaginary axis, and Q the conjugate of P.
    """
    path, _, leaf = name.rpartition(".")
    if leaf == "Q":
        return draw(seed, f"{path}.P", shape, batch_norm) * np.array([1, -1], np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if leaf == "num_batches_tracked":
        return np.zeros((), np.float32)
    if leaf == "running_var" or (batch_norm and leaf == "weight"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf == "running_mean" or "bias" in leaf:
        return generator.normal(0, 0.1, shape).astype(np.float32)
    if leaf == "log_dt":
        return generator.uniform(np.log(0.001), np.log(0.1), shape).astype(np.float32)
    if leaf == "w":
        return (generator.uniform(0.25, 1, shape) * np.array([-1, 20])).astype(np.float32)
    if leaf in ("B", "C", "D", "P"):
        return generator.normal(0, 1, shape).astype(np.float32)
    fan_in = np.prod(shape[1:], dtype=int) if len(shape) > 1 else shape[0]
    return generator.normal(0, 1 / np.sqrt(fan_in), shape).astype(np.float32)
