"""Every objective against its published formula, written again in PyTorch with the same weights."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from mi_jax import attacks, data, models
from mi_jax.attacks.threat_model import ThreatModel
from mi_jax.errors import InputError
from mi_jax.runs.config import RunConfig
from mi_jax.training import ObjectiveConfig, Optimizer, Trainer

torch = pytest.importorskip("torch")
F = torch.nn.functional

NETWORK = models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.25)
CONFIG = ObjectiveConfig(attack=attacks.PGD(eps=0.1, steps=3, step_size=0.04))
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def variables():
    return NETWORK.init(jax.random.key(0))


@pytest.fixture(scope="module")
def batch(arrays):
    return data.to_float(arrays[0][:24]), arrays[1][:24]


def to_torch(tree):
    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf, np.float64), requires_grad=True), tree)


def torch_mlp(params, x):
    """The multilayer perceptron in torch, on flattened images `[b d]`."""
    for layer in ("dense1", "dense2", "dense3", "dense4"):
        x = F.relu(x @ params[layer]["kernel"] + params[layer]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def flat(images):
    return torch.tensor(np.asarray(images, np.float64).reshape(len(images), -1))


def trades(clean, adversarial, y):
    """Zhang et al. (2019), eq. 5 with 1 / lambda = 6."""
    p, q = clean.softmax(1), adversarial.softmax(1)
    return -clean.log_softmax(1)[range(len(y)), y].mean() + 6 * (p * (p / q).log()).sum(1).mean()


def mart(clean, adversarial, y):
    """Wang et al. (2020), eq. 11 with lambda = 5."""
    p, q = clean.softmax(1), adversarial.softmax(1)
    rows = range(len(y))
    others = q.clone()
    others[rows, y] = -1
    boosted = -q[rows, y].log() - (1 - others.max(1).values).log()
    return (boosted + 5 * (p * (p / q).log()).sum(1) * (1 - p[rows, y])).mean()


def madry(clean, adversarial, y):
    return F.cross_entropy(adversarial, y)


def normal(clean, adversarial, y):
    return F.cross_entropy(adversarial, y)


@pytest.mark.parametrize(
    ("name", "formula"),
    [("nt", normal), ("at", madry), ("fast", madry), ("noise", normal), ("trades", trades), ("mart", mart)],
)
def test_the_loss_and_its_gradient_are_those_of_the_paper(variables, batch, name, formula):
    x, y = batch
    perturbed = jnp.clip(x + 0.2 * jax.random.normal(KEY, x.shape), 0, 1)

    def loss(params):
        seen = {"params": params, "batch_stats": {}}
        return CONFIG.objective(name).loss(NETWORK, seen, x, perturbed, y, KEY)[0]

    # Larger weights than the initial ones: predictions that are wrong, right and sure are all among them.
    params = jax.tree.map(lambda leaf: 2 * leaf, variables["params"])
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    peer = to_torch(params)
    expected = formula(torch_mlp(peer, flat(x)), torch_mlp(peer, flat(perturbed)), torch.tensor(np.asarray(y)).long())
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=2e-5)
    jax.tree.map(
        lambda mine, theirs: np.testing.assert_allclose(
            mine, theirs.grad.numpy(), atol=2e-5 * float(theirs.grad.abs().max()) + 1e-9
        ),
        gradient,
        peer,
    )


def test_the_losses_stay_finite_where_the_network_is_sure_and_wrong(variables, batch):
    """float32 probabilities are then exactly 0 and 1, and their logarithms infinite."""
    x, y = batch
    params = jax.tree.map(lambda leaf: 30 * leaf, variables["params"])
    for name in ("trades", "mart"):

        def loss(params, name=name):
            seen = {"params": params, "batch_stats": {}}
            return CONFIG.objective(name).loss(NETWORK, seen, x, 1 - x, y, KEY)[0]

        value, gradient = jax.value_and_grad(loss)(params)
        assert float(value) > 100
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_without_its_divergence_an_objective_is_its_first_term(variables, batch, name):
    """TRADES with beta 0 is normal training, to the bit; MART with weight 0 forgets the clean images."""
    x, y = batch
    config = ObjectiveConfig(CONFIG.attack, trades_beta=0.0, mart_weight=0.0)
    first, other = (
        config.objective(name).loss(NETWORK, variables, clean, moved, y, KEY)[0]
        for clean, moved in ((x, 1 - x), (x, x) if name == "trades" else (1 - x, 1 - x))
    )
    np.testing.assert_allclose(first, other, rtol=1e-6)
    if name == "trades":
        normal = config.objective("nt").loss(NETWORK, variables, x, x, y, KEY)[0]
        assert float(first) == float(normal)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_of_trades_climbs_the_divergence_from_a_small_gaussian_start(variables, batch, norm):
    x, y = batch
    eps, step = (0.1, 0.04) if norm == "linf" else (0.8, 0.3)
    attack = attacks.PGD(norm=norm, eps=eps, steps=3, step_size=step)
    perturb = jax.jit(CONFIG.objective("trades").perturb, static_argnums=(0, 5))
    found, _ = perturb(NETWORK, variables, x, y, KEY, dataclasses.replace(CONFIG, attack=attack))
    start = ThreatModel(norm, jnp.float32(eps)).random_start(KEY, x, "gaussian")
    assert 0.8e-3 < float(jnp.std(start - x)) < 1.2e-3
    peer, clean = to_torch(variables["params"]), flat(x)
    reference = torch_mlp(peer, clean).softmax(1).detach()
    moved = flat(jnp.clip(start, 0, 1))
    for _ in range(3):
        moved.requires_grad_(True)
        divergence = F.kl_div(torch_mlp(peer, moved).log_softmax(1), reference, reduction="sum")
        (gradient,) = torch.autograd.grad(divergence, moved)
        with torch.no_grad():
            if norm == "linf":
                moved = clean + (moved + step * gradient.sign() - clean).clamp(-eps, eps)
            else:
                delta = moved + step * gradient / (gradient.norm(dim=1, keepdim=True) + 1e-12) - clean
                moved = clean + delta * (eps / delta.norm(dim=1, keepdim=True)).clamp(max=1)
            moved = moved.clamp(0, 1)
    same = np.abs(np.asarray(found).reshape(len(x), -1) - moved.numpy()) < 2e-5
    # Rounding turns a sign where the divergence, flat at its start, has next to no slope.
    assert same.mean() > (0.99 if norm == "linf" else 0.999)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("linf", 0.9), ("l2", 0.8)])
def test_the_step_of_fast_training_is_one_of_a_radius_and_a_quarter_from_a_random_point(variables, batch, norm, eps):
    x, y = batch
    attack = attacks.PGD(norm=norm, eps=eps, steps=7, step_size=0.001, init="gaussian")
    fast = CONFIG.objective("fast")
    found, _ = fast.perturb(NETWORK, variables, x, y, KEY, dataclasses.replace(CONFIG, attack=attack))
    start = ThreatModel(norm, jnp.float32(eps)).random_start(KEY, x, "uniform")
    slope = jax.grad(lambda images: attacks.losses.cross_entropy(NETWORK.logits(variables, images), y).sum())(start)
    slope, start, clean = (np.asarray(a, np.float64).reshape(len(x), -1) for a in (slope, start, x))
    if norm == "linf":
        moved = clean + np.clip(start + 1.25 * eps * np.sign(slope) - clean, -eps, eps)
    else:
        moved = start + 1.25 * eps * slope / np.linalg.norm(slope, axis=1, keepdims=True) - clean
        moved = clean + moved * np.minimum(1, eps / np.linalg.norm(moved, axis=1, keepdims=True))
    np.testing.assert_allclose(np.asarray(found).reshape(len(x), -1), np.clip(moved, 0, 1), atol=1e-5)


def test_running_statistics_move_with_the_clean_and_then_with_the_perturbed_batch(normalised_trainer, arrays):
    """Each pass is normalised by its own batch: mixing the two would show a network that no test image meets."""
    network = normalised_trainer.network
    variables = network.init(jax.random.key(0))
    x, y = data.to_float(arrays[0][:16]), arrays[1][:16]
    passes = jax.jit(network.apply_train)
    _, _, with_clean = passes(variables, x, KEY)
    logits, _, with_perturbed = passes(variables, 1 - x, KEY)
    expected = jax.tree.map(
        lambda old, clean, perturbed: 0.9 * clean + (perturbed - 0.9 * old),
        variables["batch_stats"],
        with_clean,
        with_perturbed,
    )
    loss = jax.jit(CONFIG.objective("trades").loss, static_argnums=0)
    _, outcome = loss(network, variables, x, 1 - x, y, KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), outcome.batch_stats, expected)
    np.testing.assert_allclose(outcome.logits, logits, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trades_beta": -1.0}, "Invalid trades_beta -1.0: expected a number of at least 0, such as 6"),
        ({"mart_weight": float("nan")}, "Invalid mart_weight nan: expected a number of at least 0, such as 5"),
        ({"fast_step": 0.0}, "Invalid fast_step 0.0: expected a positive number, such as 1.25 radii"),
        ({"noise": 0.0}, "Invalid noise 0.0: expected a positive number"),
        ({"batch_norm": "train"}, "Invalid batch_norm 'train': expected one of eval, batch, batch_update"),
        ({"trades_gamma": 1.0}, "No training has an option 'trades_gamma'. .*trades_beta"),
        ({"attack": attacks.PGD(loss="dlr")}, "Invalid attack.loss 'dlr': expected 'ce', since the attack of a"),
        ({"attack": attacks.PGD(keep="best")}, "Invalid attack.keep 'best': expected 'last'"),
        ({"attack": attacks.PGD(restarts=3)}, "Invalid attack.restarts 3: expected 1"),
        ({"attack": attacks.APGD()}, "attack must be mi_jax.attacks.PGD, not APGD"),
    ],
)
def test_settings_out_of_range_are_refused(change, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse an unknown mode first
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("training", "attack", "message"),
    [
        (
            "fast",
            attacks.PGD(norm="l2", eps=0.5),
            r"Invalid fast_step 4\.0: expected a number in \[0, 3\], such as 1\.25",
        ),
        ("fast", attacks.PGD(norm="l1", eps=2.0), r"Invalid fast_step 4\.0: expected a number in \[0, 3\]"),
        ("fast", attacks.PGD(eps=0.0), r"Invalid attack\.eps 0\.0: expected a positive number"),
    ],
)
def test_an_attack_with_which_an_objective_cannot_train_is_refused_before_training(trainer, training, attack, message):
    config = ObjectiveConfig(attack=attack, fast_step=4.0)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(trainer, objective=training, objective_config=config)
    with pytest.raises(InputError, match=message):
        RunConfig(arch="mlp", dataset="digits", trainings=("nt", training), attack=attack, fast_step=4.0)
    assert dataclasses.replace(trainer, objective="nt", objective_config=config).objective == "nt"
    assert RunConfig(arch="mlp", dataset="digits", trainings=("nt",), attack=attack, fast_step=4.0).attack == attack


def test_options_are_those_of_the_objective_that_declares_them():
    config = ObjectiveConfig(trades_beta=3.0, noise=8 / 255)
    assert config.objective("trades").trades_beta == 3.0
    assert dataclasses.replace(config, fast_step=1.0).objective("trades").trades_beta == 3.0
    assert config == ObjectiveConfig(trades_beta=3.0)
    assert hash(config) == hash(ObjectiveConfig(trades_beta=3.0))
    assert dataclasses.replace(config, trades_beta=6.0) == ObjectiveConfig()


def test_an_unknown_objective_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="There is no training 'pgd'; choose from fast, mart, noise, nt, at, trades"):
        Trainer(
            network=NETWORK, objective="pgd", objective_config=CONFIG, optimizer=Optimizer(),
            augmentation=data.Augmentation(), epochs=1, batch_size=1, examples=1, seeds=(0,),
        )  # fmt: skip


def test_the_cross_entropy_of_the_trained_images_is_kept_beside_what_is_minimised(arrays):
    """TRADES minimises more than it; normal training just it."""
    images, labels = arrays
    for objective in ("nt", "trades"):
        trainer = Trainer(
            NETWORK, objective, CONFIG, Optimizer(), data.Augmentation(), epochs=1, batch_size=32,
            examples=len(images), seeds=(0,),
        )  # fmt: skip
        totals = trainer.advance(trainer.init(images), images, labels, 0, 2)["totals"]
        if objective == "nt":
            assert float(totals["cross_entropy"]) == pytest.approx(float(totals["loss"]), rel=1e-6)
        else:
            assert abs(float(totals["cross_entropy"]) - float(totals["loss"])) > 1e-3
            assert float(totals["cross_entropy"]) / 2 == pytest.approx(np.log(10), abs=1.5)
