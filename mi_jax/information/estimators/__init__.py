"""The estimators that the registry finds: one file each. Import them from `mi_jax.information`."""
