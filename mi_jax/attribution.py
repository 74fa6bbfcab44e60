"""Which pixels a classifier's logit rests on: gradient, SmoothGrad, integrated gradients, Grad-CAM, LayerCAM.

Works on any JAX function that gives logits; scores no map and draws none. Everything here can be traced by `jax.jit`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, LogitsFn

PixelMaps = Float[Array, "b h w c"]
"""A value for each pixel and channel, signed, in logit per unit of pixel value or in logits, as the function says."""
Maps = Float[Array, "b h w"]
"""A value for each position of the image."""
LayerMaps = Float[Array, "b rows columns"]
"""A value for each position of a layer."""
_Features = Float[Array, "b rows columns channels"]
ApplyFn = Callable[[Any, Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]
"""`apply(variables, images, perturbations) -> (logits, taps)`: adds `perturbations[layer]` to that layer's activation
before the next layer reads it. `mi_jax.models.Network.apply` is one."""


def gradient(logits_fn: LogitsFn, variables: Any, x: Images, labels: Labels) -> PixelMaps:
    """Derivative of each image's logit of its label by its pixels (Simonyan et al. 2014): the saliency map.

    Args:
        logits_fn: `logits_fn(variables, images) -> logits`, in evaluation mode.
        variables: handed to `logits_fn`.
        x: images `[b h w c]` in [0, 1].
        labels: the class explained, `[b]`.

    Returns:
        `[b h w c]`, signed, in logits per unit of pixel value.

    Raises:
        InputError: labels out of range, or logits that are not `[b k]`.
    """
    # Images of a batch do not mix in evaluation mode, so the gradient of the sum is each image's own.
    return jax.grad(lambda x: _label_logits(logits_fn(variables, x), labels).sum())(x)


def grad_x_input(logits_fn: LogitsFn, variables: Any, x: Images, labels: Labels) -> PixelMaps:
    """Gradient times pixel value (Shrikumar et al. 2017), `[b h w c]` in logits; arguments as for `gradient`.

    Raises:
        InputError: as `gradient`.
    """
    return gradient(logits_fn, variables, x, labels) * x


def smoothgrad(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    labels: Labels,
    key: Key,
    *,
    noise: float = 0.15,
    samples: int = 50,
) -> PixelMaps:
    """Mean gradient over noisy copies of the image (Smilkov et al. 2017); arguments as for `gradient`.

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.
        key: draws the noise.
        noise: standard deviation of the Gaussian noise, in pixel values; noisy images are not clipped.
        samples: number of noisy copies.

    Returns:
        `[b h w c]`, signed, in logits per unit of pixel value.

    Raises:
        InputError: negative noise, no samples, and as `gradient`.
    """
    if noise < 0:
        raise InputError(f"noise must not be negative, got {noise:g}; 0 gives the gradient, 0.15 is usual.")
    _check_positive("samples", samples)

    def add(total: Array, key: Key) -> tuple[Array, None]:
        noisy = x + noise * jax.random.normal(key, x.shape, x.dtype)
        return total + gradient(logits_fn, variables, noisy, labels), None

    return lax.scan(add, jnp.zeros_like(x), jax.random.split(key, samples))[0] / samples


def integrated_gradients(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    labels: Labels,
    *,
    baseline: Float[Array, "..."] | float = 0.0,
    steps: int = 64,
) -> PixelMaps:
    """Gradient integrated along the line from a baseline, times the way (Sundararajan et al. 2017, equation 1).

    The integral is the midpoint rule's. The map sums to `logit(x) - logit(baseline)` up to its error, which
    `completeness_error` measures.

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.
        baseline: the image without information: a pixel value, or an array that broadcasts to `x`.
        steps: points of the midpoint rule.

    Returns:
        `[b h w c]`, signed, in logits.

    Raises:
        InputError: no steps, and as `gradient`.
    """
    _check_positive("steps", steps)
    way = x - baseline

    def add(total: Array, position: Array) -> tuple[Array, None]:
        return total + gradient(logits_fn, variables, baseline + position * way, labels), None

    positions = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps
    return way * lax.scan(add, jnp.zeros_like(x), positions)[0] / steps


def completeness_error(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    labels: Labels,
    maps: PixelMaps,
    *,
    baseline: Float[Array, "..."] | float = 0.0,
) -> Float[Array, " b"]:
    """How far a map's sum is from the change of the logit, as a share of that change.

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.
        maps: what `integrated_gradients` gave for the same images, labels and baseline.
        baseline: as for `integrated_gradients`.

    Returns:
        `[b]`: `abs(sum(map) - change) / abs(change)` with `change = logit(x) - logit(baseline)`.

    Raises:
        InputError: as `gradient`.
    """
    start = jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape)
    change = _label_logits(logits_fn(variables, x), labels) - _label_logits(logits_fn(variables, start), labels)
    return jnp.abs(maps.sum((1, 2, 3)) - change) / jnp.abs(change)


def grad_cam(apply: ApplyFn, variables: Any, x: Images, labels: Labels, *, layer: str) -> LayerMaps:
    """Grad-CAM (Selvaraju et al. 2017): a layer's channels weighted by their mean gradient, positive part.

    Args:
        apply: `apply(variables, images, perturbations) -> (logits, taps)`, in evaluation mode.
        variables: handed to `apply`.
        x: images `[b h w c]` in [0, 1].
        labels: the class explained, `[b]`.
        layer: a tap that is a map, `[b h' w' c']`; the last convolution is usual.

    Returns:
        `[b h' w']` at the layer's resolution, not negative; `enlarge` brings it to the image's.

    Raises:
        InputError: an unknown layer, a layer that is no map, and as `gradient`.
    """
    activation, derivative = activation_and_derivative(apply, variables, x, labels, layer=layer)
    weights = derivative.mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * activation).sum(-1))


def layer_cam(apply: ApplyFn, variables: Any, x: Images, labels: Labels, *, layer: str) -> LayerMaps:
    """LayerCAM (Jiang et al. 2021, equation 6): each element weighted by the positive part of its own gradient.

    Args:
        apply: as for `grad_cam`.
        variables: as for `grad_cam`.
        x: as for `grad_cam`.
        labels: as for `grad_cam`.
        layer: as for `grad_cam`; unlike there, early layers give sharp maps.

    Returns:
        `[b h' w']` at the layer's resolution, not negative.

    Raises:
        InputError: as `grad_cam`.
    """
    activation, derivative = activation_and_derivative(apply, variables, x, labels, layer=layer)
    return jax.nn.relu((jax.nn.relu(derivative) * activation).sum(-1))


def magnitude(maps: PixelMaps) -> Maps:
    """The largest absolute value over the channels (Simonyan et al. 2014): `[b h w c] -> [b h w]`."""
    return jnp.abs(maps).max(-1)


def enlarge(maps: LayerMaps, *, height: int, width: int) -> Maps:
    """A layer's map at the image's resolution, by bilinear interpolation: `[b h' w'] -> [b height width]`."""
    return jax.image.resize(maps, (maps.shape[0], height, width), "bilinear")


def activation_and_derivative(
    apply: ApplyFn, variables: Any, x: Images, labels: Labels, *, layer: str
) -> tuple[_Features, _Features]:
    """A layer's activation and the derivative of each image's logit of its label by it; arguments as for `grad_cam`.

    The derivative by a zero added to the activation is the derivative by the activation.

    Returns:
        Two arrays `[b h' w' c']`, float32.

    Raises:
        InputError: as `grad_cam`.
    """
    _, shapes = jax.eval_shape(lambda v, x: apply(v, x, {}), variables, x)
    if layer not in shapes:
        raise InputError(f"no layer {layer!r}; choose from {', '.join(shapes)}.")
    shape = shapes[layer]
    if len(shape.shape) != 4:
        maps = [name for name, tap in shapes.items() if len(tap.shape) == 4]
        raise InputError(f"layer {layer!r} has no height and width to map; choose from {', '.join(maps)}.")

    def score(added: Array) -> tuple[Array, Array]:
        logits, taps = apply(variables, x, {layer: added})
        return _label_logits(logits, labels).sum(), taps[layer]

    derivative, activation = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return activation.astype(jnp.float32), derivative.astype(jnp.float32)


def _label_logits(logits: Array, labels: Labels) -> Float[Array, " b"]:
    if logits.ndim != 2 or logits.shape[0] != labels.shape[0]:
        raise InputError(f"logits must be [batch, classes] a row for each label, not {logits.shape}.")
    classes = logits.shape[1]
    if not isinstance(labels, Tracer):
        # NumPy, because JAX would trace the comparison where a loop is being traced around known labels.
        known = np.asarray(labels)
        if (known < 0).any() or (known >= classes).any():
            raise InputError(f"labels must lie in 0..{classes - 1}, the classes that the logits have.")
    return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}.")
