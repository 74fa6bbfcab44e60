"""Training, measurement, estimation and AutoAttack on eight devices of the host give the results of one device."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mi_jax import data, models, parallel
from mi_jax.attacks import PGD, Budget, autoattack
from mi_jax.information import kde, monte_carlo
from mi_jax.measure.accuracy import robustness
from mi_jax.measure.information import activations
from mi_jax.training import ObjectiveConfig, Optimizer, Trainer


def train() -> dict[str, float]:
    digits = data.load("digits", limit=320)
    one = Trainer(
        network=models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.05),
        objective="at",
        objective_config=ObjectiveConfig(attack=PGD(eps=0.1, steps=2, step_size=0.05)),
        optimizer=Optimizer(learning_rate=0.05),
        augmentation=data.Augmentation(pad=1),
        epochs=1,
        batch_size=32,
        examples=320,
        seeds=(0,),
    )
    results, seeds_of_device = [], 0
    for spec, seeds in (("none", (0,)), ("auto", (0,)), ("seed=2,data=4", (0, 1))):
        mesh = parallel.make_mesh(spec)
        trainer = dataclasses.replace(one, mesh=mesh, seeds=seeds)
        images, labels = (parallel.replicated(mesh, a) for a in (digits.train.images, digits.train.labels))
        state = trainer.advance(trainer.place(trainer.init(digits.train.images)), images, labels, 0, 5)
        results.append(jax.device_get(trainer.members(state)[0][1]["variables"]))
        seeds_of_device = len(jax.tree.leaves(state["variables"])[0].addressable_shards[0].data)

    def largest_difference(a, b) -> float:
        return max(float(np.abs(p - q).max()) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))

    return {
        "devices": mesh.size,
        "weights": largest_difference(*results[:2]),
        "weights beside another seed": largest_difference(results[0], results[2]),
        "seeds of a device": seeds_of_device,
    }


def measure() -> dict[str, float]:
    """Attacks, accuracies and activations, of 60 images, which do not divide by eight, and of 64, which do."""
    digits = data.load("digits", limit=320)
    network = models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.05)
    variables, attack = network.init(jax.random.key(0)), PGD(eps=0.1, steps=2, step_size=0.05)
    images, labels = digits.test.to_float()[:64], np.asarray(digits.test.labels[:64])
    made, shares = [], []
    for mesh in (None, parallel.make_mesh("auto")):
        placed = parallel.replicated(mesh, variables)
        rows, attacked = robustness(network, placed, images[:60], labels[:60], jax.random.key(1), attack=attack)
        taps = activations(network, placed, images)
        made.append([np.array([row.value for row in rows]), attacked, *taps.values()])
        shares.append(len(taps["logits"].addressable_shards[0].data))
    differences = [float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(*made, strict=True)]
    return {"results": len(differences), "differences": max(differences), "share": shares[1] / shares[0]}


def estimate() -> dict[str, float]:
    from mi_jax.information import _tiles

    _tiles.tile_height = lambda n: 40
    r = np.random.default_rng(0)
    x, y = r.standard_normal((200, 30)).astype(np.float32), r.integers(0, 4, 200)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows")))
    options = {"noise_variance": [1.0, 8.0], "num_classes": 4}
    one, host, rows = (kde(t, y, mesh=m, **options) for t, m in ((x, None), (x, mesh), (spread, None)))
    bounds = ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_certified_lower")
    far = [np.abs(getattr(one, name) - getattr(other, name)).max() for name in bounds for other in (host, rows)]
    draws = [monte_carlo(t, y, key=jax.random.key(0), **options).i_ty for t in (x, spread)]
    return {"bounds": float(max(far)), "draws": float(np.abs(draws[0] - draws[1]).max())}


def attack() -> dict[str, float]:
    random = np.random.default_rng(0)
    weights = jnp.asarray(random.normal(size=(75, 4)), jnp.float32)
    x = random.uniform(0, 1, (40, 5, 5, 3)).astype(np.float32)

    def model(weights: jax.Array, x: jax.Array) -> jax.Array:
        return (x.reshape(len(x), -1) - 0.5) @ weights

    y = np.asarray(model(weights, jnp.asarray(x))).argmax(1)
    options = {"eps": 0.02, "version": ["apgd-ce", "square"], "budget": Budget(apgd_steps=3, square_queries=9)}
    mesh = jax.make_mesh((8,), ("data",))
    one, eight = (autoattack(model, weights, x, y, 0, mesh=m, batch_size=32, **options) for m in (None, mesh))
    return {
        "robust": one.robust_accuracy,
        "images": float(np.abs(one.images - eight.images).max()),
        "outcomes": int((one.broken_by != eight.broken_by).sum()),
    }


@pytest.fixture(scope="module")
def found(build_once) -> dict[str, dict[str, float]]:
    """What this file prints in a process that sees eight devices."""

    def build(file) -> None:
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        file.write_text(done.stdout)

    return json.loads(build_once("eight-devices", build).read_text())


def test_eight_devices_train_like_one(found):
    assert found["train"]["devices"] == 8
    assert found["train"]["weights"] < 2e-5


def test_groups_of_devices_train_a_seed_each_as_one_device_trains_it_alone(found):
    assert found["train"]["seeds of a device"] == 1
    assert found["train"]["weights beside another seed"] < 2e-5


def test_what_eight_devices_measure_is_what_one_measures_and_each_holds_an_eighth(found):
    assert found["measure"]["results"] == 7
    assert found["measure"]["differences"] < 1e-5
    assert found["measure"]["share"] == 1 / 8


def test_estimates_on_eight_devices_are_those_of_one(found):
    assert found["estimate"]["bounds"] < 1e-6
    assert found["estimate"]["draws"] < 1e-5


def test_attacks_on_eight_devices_have_the_outcome_of_one(found):
    assert 0 < found["attack"]["robust"] < 1
    assert found["attack"]["outcomes"] == 0
    assert found["attack"]["images"] < 1e-6


if __name__ == "__main__":
    print(json.dumps({task.__name__: task() for task in (train, measure, estimate, attack)}))
