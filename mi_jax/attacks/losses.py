"""Losses that attacks maximise, one value per image, as functions of the logits.

Callers sum them, so that gradients do not depend on the batch size.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from mi_jax import checks
from mi_jax.attacks.threat_model import TINY
from mi_jax.errors import InputError
from mi_jax.typing import Flags, Labels, Logits

Loss = Literal["ce", "dlr", "cw", "kl"]
Losses = jax.Array


def at(logits: Logits, labels: Labels) -> Losses:
    """Logit of the given class of each image [b]."""
    return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


def best_other(logits: Logits, labels: Labels) -> Losses:
    """Largest logit among the classes other than the given one [b]."""
    return jnp.max(others(logits, labels), axis=1)


def others(logits: Logits, labels: Labels) -> Logits:
    """The logits with minus infinity in the place of the given class [b k]."""
    return jnp.where(jax.nn.one_hot(labels, logits.shape[1], dtype=bool), -jnp.inf, logits)


def misclassified(logits: Logits, labels: Labels) -> Flags:
    """Whether the highest logit is finite and not the label's [b].

    Images with NaN or infinite logits do not count as misclassified: a numerical failure is no adversarial example.
    """
    predicted = lax.argmax(logits, 1, jnp.int32)
    return jnp.isfinite(jnp.max(logits, axis=1)) & (predicted != jnp.asarray(labels, jnp.int32))


def margin(logits: Logits, labels: Labels) -> Losses:
    """max_{i != y} z_i - z_y [b], positive where misclassified."""
    return best_other(logits, labels) - at(logits, labels)


def cross_entropy(logits: Logits, labels: Labels) -> Losses:
    """-log softmax(z)_y in nats [b]."""
    return jax.nn.logsumexp(logits, axis=1) - at(logits, labels)


def cw(logits: Logits, labels: Labels) -> Losses:
    """The margin as a loss [b] (Carlini and Wagner 2017, f_6)."""
    return margin(logits, labels)


def dlr(logits: Logits, labels: Labels) -> Losses:
    """Difference of logits ratio -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)) [b] (Croce and Hein 2020, eq. 6).

    Invariant to shift and scale of the logits. Raises `InputError` for fewer than three classes.
    """
    require_classes(logits, 3, "The DLR loss")
    top = jax.lax.top_k(logits, 3)[0]
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> Losses:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) [b] (Croce and Hein 2020, eq. 7).

    Raises `InputError` for fewer than four classes.
    """
    require_classes(logits, 4, "The targeted DLR loss")
    top = jax.lax.top_k(logits, 4)[0]
    return (at(logits, targets) - at(logits, labels)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def kl(logits: Logits, reference: Logits) -> Losses:
    """KL(softmax(reference) || softmax(logits)) in nats [b] (the inner loss of TRADES, Zhang et al. 2019)."""
    log_p = jax.nn.log_softmax(reference)
    # A class masked by a logit of minus infinity has probability zero and adds nothing.
    ratio = jnp.where(log_p > -jnp.inf, log_p - jax.nn.log_softmax(logits), 0)
    return jnp.sum(jnp.exp(log_p) * ratio, axis=1)


def loss_of(
    loss: str, labels: Labels, *, targets: Labels | None = None, reference: Logits | None = None
) -> Callable[[Logits], Losses]:
    """The named loss as a function of the logits alone.

    With `targets` [b] it grows towards the target class: `ce` is log softmax(z)_t, `dlr` the targeted DLR loss, `cw`
    z_t - z_y. `kl` needs the clean logits as `reference` and cannot be targeted.
    """
    if loss == "kl":
        if targets is not None or reference is None:
            raise InputError("The loss 'kl' cannot be targeted; use 'ce', 'dlr' or 'cw'.")
        clean = jax.lax.stop_gradient(reference)
        return lambda logits: kl(logits, clean)
    if targets is None:
        plain = {"ce": cross_entropy, "dlr": dlr, "cw": cw}[loss]
        return lambda logits: plain(logits, labels)
    if loss == "ce":
        return lambda logits: -cross_entropy(logits, targets)
    if loss == "dlr":
        return lambda logits: targeted_dlr(logits, labels, targets)
    return lambda logits: at(logits, targets) - at(logits, labels)


def least_classes(loss: str, targeted: bool) -> int:
    """The least number of classes for a loss."""
    return (4 if targeted else 3) if loss == "dlr" else 2


def check_loss(loss: str) -> None:
    """Raises `InputError` for an unknown loss."""
    checks.one_of("loss", loss, get_args(Loss))


def require_classes(logits: Logits, least: int, what: str) -> None:
    """Raises `InputError` for logits with too few classes for a loss."""
    if logits.shape[1] < least:
        raise InputError(f"{what} needs at least {least} classes, but the model has {logits.shape[1]}; use loss 'ce'.")
