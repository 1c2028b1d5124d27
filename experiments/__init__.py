"""The commands."""

from imlenet_jax.runtime.memory import use_huge_pages
from imlenet_jax.runtime.start import explain_instead_of_traceback

use_huge_pages()
explain_instead_of_traceback()
