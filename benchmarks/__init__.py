"""Measurements: parity with the originals, speed, scaling, what a run survives, whether maps mean anything."""

from imlenet_jax.memory import use_huge_pages

use_huge_pages()
