"""A trainer of a small network on real digits, built once for the whole package of tests."""

import dataclasses

import jax.numpy as jnp
import pytest

from mi_jax import data, models
from mi_jax.attacks import PGD
from mi_jax.training import ObjectiveConfig, Optimizer, Trainer


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", limit=320)


@pytest.fixture(scope="session")
def arrays(digits):
    return jnp.asarray(digits.train.images), jnp.asarray(digits.train.labels)


@pytest.fixture(scope="session")
def trainer(digits):
    return Trainer(
        network=models.create("cnn", num_classes=10, input_shape=(8, 8, 1), width=0.25),
        objective="at",
        objective_config=ObjectiveConfig(attack=PGD(eps=0.1, steps=2, step_size=0.05)),
        optimizer=Optimizer(name="adam", learning_rate=0.01, schedule="triangle"),
        augmentation=data.Augmentation(pad=1),
        epochs=3,
        batch_size=32,
        examples=len(digits.train),
        seeds=(0,),
    )


@pytest.fixture(scope="session")
def normalised_trainer(trainer):
    """The same with a network that has batch normalisation."""
    return dataclasses.replace(
        trainer, network=models.create("wrn-10-1", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    )


@pytest.fixture(scope="session")
def normal_trainer(trainer):
    return dataclasses.replace(trainer, objective="nt")
