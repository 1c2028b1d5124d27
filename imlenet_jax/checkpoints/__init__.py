"""What a checkpoint says of itself, and reading one; `imlenet_jax.training.saving` writes them."""
