"""PGD and Auto-PGD against torchattacks 3.5.1, foolbox 3.3.4 and pyautoattack 0.2.0 on shared weights.

In double precision, so that rounding rarely flips the sign of a gradient or the order of two losses.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from mi_jax.attacks import APGD, PGD, pgd
from mi_jax.attacks.apgd import state_at
from mi_jax.attacks.attack import Batch
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import problem_of, ranked_targets
from mi_jax.attacks.engine.run import steps as advance
from mi_jax.attacks.losses import cw, dlr

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
COUNT = 60
EPS = {"linf": 0.1, "l2": 0.8}


def to_numpy(images: torch.Tensor) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


def share_equal(ours, theirs):
    """Share of images that agree in every pixel."""
    return np.mean(np.abs(np.asarray(ours) - theirs).max((1, 2, 3)) <= 1e-5)


@pytest.fixture(params=["normal", "robust"])
def net(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def double(net):
    """Images, labels and variables in float64, and torch with its batch."""
    x, y = net.torch_batch(COUNT)
    net.torch_model.double()
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), net.variables)
        images = jnp.asarray(net.images[:COUNT].astype(np.float64))
        yield images, jnp.asarray(net.labels[:COUNT]), variables, net.torch_model, x.double(), y
    net.torch_model.float()


def test_logits_equal_torch(cnn, net):
    x, _ = net.torch_batch(COUNT)
    with torch.no_grad():
        np.testing.assert_allclose(cnn(net.variables, jnp.asarray(net.images[:COUNT])), net.torch_model(x), atol=2e-5)


def test_input_gradients_equal_torch(cnn, double):
    """In float64: in float32 rounding decides on which side of 0 a ReLU input falls."""
    images, labels, variables, torch_model, x, y = double
    x = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(torch_model(x), y, reduction="sum").backward()

    def loss(v):
        return -jnp.sum(jax.nn.log_softmax(cnn(variables, v))[jnp.arange(COUNT), labels])

    np.testing.assert_allclose(jax.grad(loss)(images), to_numpy(x.grad), atol=1e-10)


@pytest.mark.parametrize(("norm", "step"), [("linf", 0.03), ("l2", 0.2)])
def test_pgd_iterates_equal_torchattacks_and_foolbox(cnn, double, norm, step):
    torchattacks = pytest.importorskip("torchattacks")
    import foolbox

    images, labels, variables, torch_model, x, y = double
    eps = EPS[norm]
    peer = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    config = PGD(norm=norm, eps=eps, steps=1, step_size=step, random_start=False)
    ours = images
    for steps in range(1, 11):
        ours = pgd(cnn, variables, images, labels, config=config, start=ours).images
        theirs = to_numpy(peer(torch_model, eps=eps, alpha=step, steps=steps, random_start=False)(x, y))
        assert share_equal(ours, theirs) == 1, steps
    if norm == "linf":
        assert np.abs(ours - theirs).max() < 1e-15
    other = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    model = foolbox.PyTorchModel(torch_model, bounds=(0, 1), device="cpu")
    attack = other(abs_stepsize=step, steps=10, random_start=False)
    assert share_equal(ours, to_numpy(attack.run(model, x, y, epsilon=eps))) == 1
    config = PGD(norm=norm, eps=eps, steps=10, step_size=step, random_start=False)
    assert share_equal(pgd(cnn, variables, images, labels, config=config).images, theirs) == 1


def test_pgd_iterates_in_single_precision_equal_torchattacks_for_most_images(cnn, net):
    torchattacks = pytest.importorskip("torchattacks")
    x, y = net.torch_batch(COUNT)
    theirs = torchattacks.PGD(net.torch_model, eps=0.1, alpha=0.03, steps=10, random_start=False)(x, y)
    config = PGD(eps=0.1, steps=10, step_size=0.03, random_start=False)
    ours = pgd(cnn, net.variables, net.images[:COUNT], net.labels[:COUNT], config=config).images
    assert share_equal(ours, to_numpy(theirs)) > 0.9


def starts(images, eps, norm):
    """Starting points for both implementations: on the surface of the ball, clipped to [0, 1]."""
    noise = np.random.default_rng(1).uniform(-1, 1, images.shape)
    size = np.abs(noise).max((1, 2, 3)) if norm == "linf" else np.sqrt((noise**2).sum((1, 2, 3)))
    return np.clip(np.asarray(images) + eps * noise / size[:, None, None, None], 0, 1)


@functools.lru_cache
def apgd_run(cnn, config):
    """The whole attack from a given start, compiled once for both networks."""

    @jax.jit
    def run(variables, batch, start):
        problem = problem_of(config, Model(cnn), variables, None, batch)
        return advance(config, problem, state_at(start, config.eps), None, 0, config.iterations)

    return run


@pytest.mark.parametrize(
    ("norm", "loss"), [("linf", "ce"), ("linf", "dlr"), ("linf", "dlr-targeted"), ("l2", "ce"), ("l2", "dlr-targeted")]
)
def test_apgd_from_the_same_start_equals_pyautoattack(cnn, double, norm, loss):
    images, labels, variables, torch_model, x, y = double
    eps = EPS[norm]
    start = starts(images, eps, norm)
    targeted = loss == "dlr-targeted"
    peer_class = APGDAttack_targeted if targeted else APGDAttack
    extra = {} if targeted else {"loss": loss}
    peer = peer_class(torch_model, n_iter=40, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, device="cpu", **extra)
    peer.init_hyperparam(x)
    targets = ranked_targets(cnn(variables, images), labels, 1)[:, 0].astype(labels.dtype)
    peer.y_target = torch.tensor(np.asarray(targets)).long()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            best, accurate, _, adversarial = peer.attack_single_run(
                x, y, x_init=torch.tensor(start.transpose(0, 3, 1, 2).copy())
            )
    finally:
        torch.set_default_dtype(torch.float32)

    config = APGD(
        norm=norm, eps=eps, steps=40, loss=loss.split("-")[0], targets=int(targeted), wrapped_first_check=True
    )
    batch = Batch(images, labels, targets if targeted else None, jnp.zeros_like(labels))
    ours = apgd_run(cnn, config)(variables, batch, jnp.asarray(start))
    np.testing.assert_array_equal(ours.found, accurate.numpy() == 0)
    found = np.asarray(ours.found)
    assert share_equal(ours.best, to_numpy(best)) > 0.95
    assert share_equal(ours.images[found], to_numpy(adversarial)[found]) > 0.95


def test_dlr_equals_pyautoattack(net, cnn):
    y = net.torch_batch(COUNT)[1]
    peer = APGDAttack(net.torch_model, eps=0.1, device="cpu")
    logits = cnn(net.variables, jnp.asarray(net.images[:COUNT]))
    ours = dlr(logits, jnp.asarray(net.labels[:COUNT]))
    np.testing.assert_allclose(ours, peer.dlr_loss(torch.tensor(np.asarray(logits)), y), rtol=1e-4, atol=1e-5)
    assert np.all((np.asarray(cw(logits, jnp.asarray(net.labels[:COUNT]))) > 0) == (np.asarray(ours) > 0))
