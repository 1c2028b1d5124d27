"""The commands."""

from imlenet_jax.memory import use_huge_pages

use_huge_pages()
