"""Models for the tests of the attacks: a linear one with closed-form attacks, and trained networks in JAX and torch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mi_jax.attacks import PGD, perturb
from mi_jax.optax_update import update

# The networks are too small to profit from a second thread.
torch.set_num_threads(1)


def affine(variables, x):
    return x.reshape(len(x), -1).astype(variables["w"].dtype) @ variables["w"] + variables["b"][None]


@pytest.fixture(scope="session")
def linear_model():
    """Logits of five classes, linear in 4 x 3 x 2 pixels: (logits_fn, variables)."""
    w = jax.random.normal(jax.random.key(0), (24, 5))
    return affine, {"w": w, "b": jnp.zeros(5)}


@pytest.fixture(scope="session")
def batch(linear_model):
    """Nine images away from the borders of [0, 1] with the labels that the linear model gives them."""
    x = jax.random.uniform(jax.random.key(1), (9, 4, 3, 2), minval=0.3, maxval=0.7)
    return x, jnp.argmax(affine(linear_model[1], x), axis=1)


def convolve(x, kernel):
    """A padded 3 x 3 convolution as one matrix product, which on CPU is much faster than XLA's."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def small_cnn(variables, x):
    """Two convolutions and a dense layer on 8 x 8 x 3 images."""
    x = jax.nn.relu(convolve(x, variables["k1"]) + variables["b1"][None, None, None])
    # Means, not maxima: where pixels tie, as on the black border of digits, frameworks split the gradient of a
    # maximum differently.
    x = x.reshape(len(x), 4, 2, 4, 2, 8).mean(axis=(2, 4))
    x = jax.nn.relu(convolve(x, variables["k2"]) + variables["b2"][None, None, None])
    return x.reshape(len(x), -1) @ variables["w"] + variables["b"][None]


def as_torch(variables) -> torch.nn.Module:
    """The same network in torch: kernels (h w i o) -> (o i h w), dense rows h w c -> c h w."""
    conv1, conv2 = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 16, 3, padding=1)
    dense = torch.nn.Linear(256, 10)
    with torch.no_grad():
        for layer, kernel, bias in ((conv1, "k1", "b1"), (conv2, "k2", "b2")):
            layer.weight.copy_(torch.tensor(np.asarray(variables[kernel]).transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(np.asarray(variables[bias])))
        w = np.asarray(variables["w"]).reshape(4, 4, 16, 10).transpose(3, 2, 0, 1).reshape(10, 256)
        dense.weight.copy_(torch.tensor(w))
        dense.bias.copy_(torch.tensor(np.asarray(variables["b"])))
    net = torch.nn.Sequential(
        conv1, torch.nn.ReLU(), torch.nn.AvgPool2d(2), conv2, torch.nn.ReLU(), torch.nn.Flatten(), dense
    )
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net.eval()


class Trained(NamedTuple):
    """A network on digits: its variables, the same network in torch, and test images [n 8 8 3] with labels."""

    variables: dict
    torch_model: torch.nn.Module | None
    images: np.ndarray
    labels: np.ndarray

    def torch_batch(self, count: int, offset: int = 0):
        chosen = slice(offset, offset + count)
        x = torch.tensor(self.images[chosen].transpose(0, 3, 1, 2).copy())
        return x, torch.tensor(self.labels[chosen]).long()


def digits():
    data = load_digits()
    grey = (data.images / 16).astype(np.float32)
    images = np.stack([grey, grey / 2, 1 - grey], axis=-1)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], data.target[order].astype(np.int32)


def train(images, labels, attack: PGD | None):
    """Ten epochs of Adam, on clean images or on PGD examples, in one compiled call."""
    random = np.random.default_rng(5)
    shapes = {"k1": (3, 3, 3, 8), "k2": (3, 3, 8, 16), "w": (256, 10)}
    variables = {
        name: jnp.asarray(random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), jnp.float32)
        for name, shape in shapes.items()
    } | {"b1": jnp.zeros(8), "b2": jnp.zeros(16), "b": jnp.zeros(10)}
    order = np.concatenate([random.permutation(len(images))[:1280].reshape(-1, 64) for _ in range(10)])
    optimiser = optax.adam(3e-3)

    def loss(variables, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(small_cnn(variables, x), y).mean()

    def step(carry, chosen):
        variables, state = carry
        x, y = all_images[chosen], all_labels[chosen]
        if attack is not None:
            x = perturb(small_cnn, variables, x, y, config=attack)
        return update(optimiser, jax.grad(loss)(variables, x, y), state, variables), None

    all_images, all_labels = jnp.asarray(images), jnp.asarray(labels)
    run = jax.jit(lambda carry, order: jax.lax.scan(step, carry, order)[0][0])
    return run((variables, optimiser.init(variables)), jnp.asarray(order))


@pytest.fixture(scope="session")
def linear():
    """`logits_fn` of softmax regression."""
    return affine


@pytest.fixture(scope="session")
def cnn():
    """`logits_fn` of the small network."""
    return small_cnn


@pytest.fixture(scope="session")
def softmax():
    """Softmax regression, whose attacks compile faster than those of the networks; without a network in torch."""
    images, labels = digits()
    model = LogisticRegression(C=0.1, max_iter=1000).fit(images[:1300].reshape(1300, -1), labels[:1300])
    variables = {"w": jnp.asarray(model.coef_.T, jnp.float32), "b": jnp.asarray(model.intercept_, jnp.float32)}
    return Trained(variables, None, images[1300:], labels[1300:])


@pytest.fixture(scope="session")
def normal():
    """A normally trained network."""
    images, labels = digits()
    variables = train(images[:1300], labels[:1300], None)
    return Trained(variables, as_torch(variables), images[1300:], labels[1300:])


@pytest.fixture(scope="session")
def robust():
    """A network trained on PGD examples (Linf, eps 0.1)."""
    images, labels = digits()
    variables = train(images[:1300], labels[:1300], PGD(eps=0.1, steps=5, step_size=0.03, random_start=False))
    return Trained(variables, as_torch(variables), images[1300:], labels[1300:])
