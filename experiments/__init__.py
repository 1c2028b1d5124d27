"""Command lines of imlenet_jax: flags and printing."""
