"""One file for each family of architectures; a file that is put here is found by `mi_jax.models.registry`."""
