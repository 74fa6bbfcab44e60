"""Which pixels a classifier's logit depends on: gradient, SmoothGrad, integrated gradients, Grad-CAM, LayerCAM.

For any JAX function that returns logits. Everything here can be traced by `jax.jit`; sums run in float32 or wider,
and maps have at least that precision, whatever the dtype of the images.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, LogitsFn

PixelMaps = Float[Array, "b h w c"]
"""A value for each pixel and channel, signed."""
Maps = Float[Array, "b h w"]
"""A value for each position of the image."""
LayerMaps = Float[Array, "b rows columns"]
"""A value for each position of a layer."""
_Features = Float[Array, "b rows columns channels"]
ApplyFn = Callable[[Any, Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]
"""`apply(variables, images, perturbations) -> (logits, taps)`: adds `perturbations[layer]` to that layer's activation
before the next layer reads it. `mi_jax.models.Network.apply` is one."""

_APPLY_FORM = "(variables, images, perturbations) -> (logits, taps)"


def gradient(logits_fn: LogitsFn, variables: Any, x: Images, labels: Labels) -> PixelMaps:
    """Derivative of each image's label logit with respect to its pixels: the saliency map.

    Args:
        logits_fn: `logits_fn(variables, images) -> logits`, in evaluation mode.
        variables: handed to `logits_fn`.
        x: images `[b h w c]` in [0, 1].
        labels: the class explained, `[b]`.

    Returns:
        `[b h w c]`, signed, in logits per unit of pixel value.

    Raises:
        InputError: images that are not floating `[b h w c]` in [0, 1], labels that are not integers `[b]` or no
            classes, and logits that are not `[b k]`, NaN, infinite or probabilities.

    References:
        Simonyan et al. (2014), section 3.

    Examples:
        >>> x = jnp.full((1, 1, 2, 1), 0.5)
        >>> weights = jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> gradient(lambda w, x: x.reshape(1, -1) @ w, weights, x, jnp.array([1])).ravel().tolist()
        [0.0, 2.0]
    """
    images, labels = _checked(logits_fn, variables, x, labels)
    return _gradient(logits_fn, variables, images, labels)


def grad_x_input(logits_fn: LogitsFn, variables: Any, x: Images, labels: Labels) -> PixelMaps:
    """Gradient times pixel value.

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.

    Returns:
        `[b h w c]`, signed, in logits.

    Raises:
        InputError: as `gradient`.

    References:
        Shrikumar et al. (2017).
    """
    images, labels = _checked(logits_fn, variables, x, labels)
    return _gradient(logits_fn, variables, images, labels) * images


def smoothgrad(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    labels: Labels,
    key: Key | int,
    *,
    noise: float = 0.15,
    samples: int = 50,
) -> PixelMaps:
    """Mean gradient over noisy copies of the image (SmoothGrad).

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.
        key: a random key or a seed, for the noise, which depends on the place of an image among the others.
        noise: standard deviation of the Gaussian noise, in pixel units, at most 1; noisy images are not clipped.
        samples: number of noisy copies.

    Returns:
        `[b h w c]`, signed, in logits per unit of pixel value.

    Raises:
        InputError: noise outside [0, 1], no samples, and as `gradient`.

    References:
        Smilkov et al. (2017).
    """
    checks.between("noise", noise, 0, 1, usual="0.15")
    checks.count("samples", samples)
    images, labels = _checked(logits_fn, variables, x, labels)
    keys = jax.random.split(checks.key(key), samples)
    wide = images.astype(_wide(images))

    def add(total: Array, key: Key) -> tuple[Array, None]:
        noisy = wide + float(noise) * jax.random.normal(key, wide.shape, wide.dtype)
        return total + _gradient(logits_fn, variables, noisy.astype(images.dtype), labels), None

    return lax.scan(add, jnp.zeros_like(wide), keys)[0] / samples


def integrated_gradients(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    labels: Labels,
    *,
    baseline: Float[Array, "..."] | float = 0.0,
    steps: int = 64,
) -> PixelMaps:
    """Gradient integrated along the line from a baseline, times the difference.

    The integral is computed by the midpoint rule. The map sums to `logit(x) - logit(baseline)` up to its error, which
    `completeness_error` measures.

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.
        baseline: the reference image: a pixel value, or an array that broadcasts to `x`.
        steps: points of the midpoint rule.

    Returns:
        `[b h w c]`, signed, in logits.

    Raises:
        InputError: no steps, a baseline that is not of real numbers in [0, 1], and as `gradient`.

    References:
        Sundararajan et al. (2017), eq. 1.
    """
    checks.count("steps", steps)
    images, labels = _checked(logits_fn, variables, x, labels)
    start = _baseline(baseline, images)
    difference = images.astype(_wide(images)) - start

    def add(total: Array, position: Array) -> tuple[Array, None]:
        point = (start + position * difference).astype(images.dtype)
        return total + _gradient(logits_fn, variables, point, labels), None

    positions = (jnp.arange(steps, dtype=difference.dtype) + 0.5) / steps
    total, _ = lax.scan(add, jnp.zeros_like(difference), positions)
    # A pixel that does not move contributes nothing, though its derivative may be infinite, as that of a root at 0.
    return jnp.where(difference == 0, 0, difference * total / steps)


def completeness_error(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    labels: Labels,
    maps: PixelMaps,
    *,
    baseline: Float[Array, "..."] | float = 0.0,
) -> Float[Array, " b"]:
    """How far a map's sum is from the change of the logit, relative to that change.

    Args:
        logits_fn: as for `gradient`.
        variables: as for `gradient`.
        x: as for `gradient`.
        labels: as for `gradient`.
        maps: what `integrated_gradients` gave for the same images, labels and baseline.
        baseline: as for `integrated_gradients`.

    Returns:
        `[b]`: `abs(sum(map) - change) / abs(change)` with `change = logit(x) - logit(baseline)`; 0 where both are 0,
        as for an image equal to the baseline.

    Raises:
        InputError: as `gradient`.
    """
    images, labels = _checked(logits_fn, variables, x, labels)
    maps = checks.numbers(maps, name="Maps")
    if maps.shape != images.shape:
        raise InputError(f"Maps must have the images' shape {images.shape}; got {maps.shape}.")
    start = _baseline(baseline, images).astype(images.dtype)
    logits, reference = (_label_logits(logits_fn(variables, at), labels) for at in (images, start))
    change = logits - reference
    missed = jnp.abs(jnp.asarray(maps, change.dtype).sum((1, 2, 3)) - change)
    return jnp.where(missed == 0, 0, missed / jnp.where(missed == 0, 1, jnp.abs(change)))


def grad_cam(apply: ApplyFn, variables: Any, x: Images, labels: Labels, *, layer: str) -> LayerMaps:
    """Grad-CAM: a layer's channels weighted by their mean gradient, positive part.

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

    References:
        Selvaraju et al. (2017), eq. 1 and 2.
    """
    activation, derivative = activation_and_derivative(apply, variables, x, labels, layer=layer)
    weights = derivative.mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * activation).sum(-1))


def layer_cam(apply: ApplyFn, variables: Any, x: Images, labels: Labels, *, layer: str) -> LayerMaps:
    """LayerCAM: each element of a layer weighted by the positive part of its own gradient.

    Args:
        apply: as for `grad_cam`.
        variables: as for `grad_cam`.
        x: as for `grad_cam`.
        labels: as for `grad_cam`.
        layer: as for `grad_cam`; early layers give sharp maps, too.

    Returns:
        `[b h' w']` at the layer's resolution, not negative.

    Raises:
        InputError: as `grad_cam`.

    References:
        Jiang et al. (2021), eq. 6.
    """
    activation, derivative = activation_and_derivative(apply, variables, x, labels, layer=layer)
    return jax.nn.relu((jax.nn.relu(derivative) * activation).sum(-1))


def magnitude(maps: PixelMaps) -> Maps:
    """The largest absolute value over the channels.

    Args:
        maps: `[b h w c]`.

    Returns:
        `[b h w]`.

    Raises:
        InputError: maps of another rank.

    References:
        Simonyan et al. (2014), section 3.1.
    """
    maps = checks.numbers(maps, name="Maps")
    if maps.ndim != 4:
        raise InputError(f"Maps must have shape [b, h, w, c]; got {maps.shape}.")
    return jnp.abs(maps).max(-1)


def enlarge(maps: LayerMaps, *, height: int, width: int) -> Maps:
    """A layer's maps at the resolution of the image, by bilinear interpolation.

    Args:
        maps: `[b h' w']`.
        height: height of the image.
        width: width of the image.

    Returns:
        `[b height width]`.

    Raises:
        InputError: maps of another rank, and a height or width below 1.
    """
    checks.count("height", height)
    checks.count("width", width)
    maps = checks.numbers(maps, name="Maps")
    if maps.ndim != 3:
        raise InputError(f"Maps must have shape [b, rows, columns]; got {maps.shape}.")
    return jax.image.resize(jnp.asarray(maps), (maps.shape[0], height, width), "bilinear")


def activation_and_derivative(
    apply: ApplyFn, variables: Any, x: Images, labels: Labels, *, layer: str
) -> tuple[_Features, _Features]:
    """A layer's activation, and the derivative of each image's label logit with respect to it.

    Computed as the derivative with respect to a zero added to the activation.

    Args:
        apply: as for `grad_cam`.
        variables: as for `grad_cam`.
        x: as for `grad_cam`.
        labels: as for `grad_cam`.
        layer: as for `grad_cam`.

    Returns:
        Two arrays `[b h' w' c']`, float32.

    Raises:
        InputError: as `grad_cam`.
    """
    checks.model(apply, name="apply", form=_APPLY_FORM)
    images, labels = checks.images(x), checks.labels(labels, len(x))
    try:
        inspect.signature(apply).bind(variables, images, {})
    except TypeError:
        raise InputError(f"apply must be a function {_APPLY_FORM}, such as that of a mi_jax.models.Network.") from None
    found: Any = jax.eval_shape(lambda v, x: checks.traced(apply, v, x, {}, name="apply"), variables, images)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
        raise InputError(f"apply must be a function {_APPLY_FORM}; it returned no taps by name.")
    shapes = found[1]
    if not isinstance(layer, str) or layer not in shapes:
        raise InputError(f"There is no layer {layer!r}; choose from {', '.join(shapes)}.")
    shape = shapes[layer]
    if len(shape.shape) != 4:
        maps = [name for name, tap in shapes.items() if len(tap.shape) == 4]
        raise InputError(f"Layer {layer!r} has no height and width to map; choose from {', '.join(maps)}.")

    def score(added: Array) -> tuple[Array, tuple[Array, Array]]:
        logits, taps = apply(variables, images, {layer: added})
        return _label_logits(logits, labels).sum(), (taps[layer], logits)

    derivative, (activation, logits) = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    checks.logits(logits, labels)  # values that were traced until here
    return activation.astype(jnp.float32), derivative.astype(jnp.float32)


def _checked(logits_fn: Any, variables: Any, x: Any, labels: Any) -> tuple[Images, Labels]:
    """Images and labels; known logits are checked too, in a separate forward pass, as gradients hide them."""
    checks.model(logits_fn)
    images = checks.images(x)
    labels = checks.labels(labels, len(images))
    if checks.known(images, labels, variables):
        checks.logits(logits_fn(variables, images), labels)
    return images, labels


def _wide(array: Array) -> Any:
    """The dtype of sums over an array: float32, or its own if that is wider."""
    return np.promote_types(array.dtype, jnp.float32)


def _baseline(baseline: Any, images: Images) -> Images:
    given = checks.numbers(np.asarray(baseline) if np.isscalar(baseline) else baseline, name="The baseline")
    try:
        start = jnp.broadcast_to(jnp.asarray(given, _wide(images)), images.shape)
    except ValueError:
        raise InputError(
            f"The baseline must be a pixel value or broadcast to {images.shape}; got shape {np.shape(given)}."
        ) from None
    return checks.images(start, name="The baseline")


def _gradient(logits_fn: LogitsFn, variables: Any, images: Images, labels: Labels) -> PixelMaps:
    # In evaluation mode images do not interact, so that the gradient of the sum is that of each image.
    gradient = jax.grad(lambda x: _label_logits(checks.traced(logits_fn, variables, x), labels).sum())(images)
    return gradient.astype(_wide(images))


def _label_logits(logits: Array, labels: Labels) -> Float[Array, " b"]:
    checks.logits(logits, labels)
    return jnp.take_along_axis(logits.astype(_wide(logits)), labels[:, None], axis=1)[:, 0]
