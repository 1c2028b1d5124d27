"""The commands."""

from imlenet_jax.memory import use_huge_pages
from imlenet_jax.training.start import explain_instead_of_traceback

use_huge_pages()
explain_instead_of_traceback()
