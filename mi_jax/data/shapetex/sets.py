"""The training, test and diagnostic sets of ShapeTex: which factors are combined, and the images as splits."""

from typing import Literal, get_args

import jax
import numpy as np

from mi_jax.data.dataset import Dataset, Split, check_limit
from mi_jax.data.registry import register
from mi_jax.data.shapetex.config import NUM_CLASSES, ShapeTex
from mi_jax.data.shapetex.scenes import Scene, draw, quantised
from mi_jax.errors import InputError

SceneName = Literal["train", "test", "redundant", "conflict", "factorial"]
# Test, redundant and suppressed images share poses, phases and noise, and differ in factors or amplitudes only.
_STREAM: dict[SceneName, int] = {"train": 0, "test": 1, "redundant": 1, "conflict": 2, "factorial": 3}
CONFLICT_PAIRS = NUM_CLASSES * (NUM_CLASSES - 1)
ALL_PAIRS = NUM_CLASSES**2


def _pairs(rng: np.random.Generator, count: int, shifts: range) -> tuple[np.ndarray, np.ndarray]:
    """Two factors whose difference modulo 10 is in `shifts`: (first, second), int32 [count].

    Every 10 images contain each value of either factor once, and every 10 len(shifts) images each allowed pair once. A
    longer sequence begins with a shorter one.
    """
    period = NUM_CLASSES * len(shifts)
    first, shift = [], []
    for _ in range(-(-count // period)):
        first.append(rng.permuted(np.tile(np.arange(NUM_CLASSES), (len(shifts), 1)), axis=1).ravel())
        shift.append(np.repeat(rng.permutation(np.array(shifts)), NUM_CLASSES))
    values, shifted = np.concatenate(first)[:count], np.concatenate(shift)[:count]
    return values.astype(np.int32), ((values + shifted) % NUM_CLASSES).astype(np.int32)


def _size(config: ShapeTex, name: SceneName) -> int:
    if name == "train":
        return config.n_train
    period = {"conflict": CONFLICT_PAIRS, "factorial": ALL_PAIRS}.get(name, 1)
    return max(period, config.n_test // period * period)


def factors(config: ShapeTex, name: SceneName) -> dict[str, np.ndarray]:
    """The factors of all images of a set: index of the "shape", "texture" and "colour", int32 [n], 0..9.

    Args:
        config: which images to generate.
        name: "train" and "test" follow the regime of `config`; "redundant" (shape and texture agree), "conflict" (they
            never do, the 90 pairs equally often) and "factorial" (all 100 pairs equally often) do not depend on it. The
            last two have the largest multiple of 90 and 100 images up to `n_test`, at least one of each pair.
    """
    count = _size(config, name)
    pair_rng, colour_rng, error_rng, wrong_rng = (
        np.random.default_rng([config.seed, _STREAM[name], part]) for part in range(4)
    )
    regime = config.regime if name in ("train", "test") else name
    shifts = {"conflict": range(1, NUM_CLASSES), "shape": range(NUM_CLASSES), "texture": range(NUM_CLASSES)}
    shifts["factorial"] = range(NUM_CLASSES)
    shape, texture = _pairs(pair_rng, count, shifts.get(regime, range(1)))
    label = {"shape": shape, "texture": texture}[config.label_cue]
    if regime == "noisy":
        wrong = error_rng.random(count) >= config.cue_validity
        other = (label + wrong_rng.integers(1, NUM_CLASSES, count)) % NUM_CLASSES
        noisy = np.where(wrong, other, label).astype(np.int32)
        shape, texture = (noisy, texture) if config.noisy_cue == "shape" else (shape, noisy)
    if config.colour_rule == "label" and name not in ("conflict", "factorial"):
        colour = label
    else:
        colour, _ = _pairs(colour_rng, count, range(1))
    return {"shape": shape, "texture": texture, "colour": colour}


def scene(config: ShapeTex, name: SceneName, *, limit: int | None = None) -> Scene:
    """Generate the cue fields of a set, for `compose`.

    "test" and "redundant" share poses, phases, random textures and noise; no other sets do. The periodic textures of
    training and test images are drawn separately, but have only as many phases as pixels in a period. With JAX's
    default generator the keys of the sets are those into which training splits the key of the same seed, so the images
    of a seed are not independent of the networks of that seed.

    Args:
        config: which images to generate.
        name: "train", "test", "redundant", "conflict" or "factorial", as in `factors`.
        limit: keep only the first images.

    Raises:
        InputError: for an unknown name, or a `limit` that is not a positive integer.
    """
    if name not in get_args(SceneName):
        raise InputError(f"ShapeTex has the scenes {', '.join(get_args(SceneName))}; got {name!r}.")
    check_limit(limit)
    chosen = {cue: values[:limit] for cue, values in factors(config, name).items()}
    key = jax.random.fold_in(jax.random.key(config.seed), _STREAM[name])
    return draw(chosen, key, scale=config.texture_scale)


def split(scene: Scene, config: ShapeTex, **changed: float) -> Split:
    """Compose the uint8 images of a scene, with labels and factors.

    The label is the index of `ShapeTex.label_cue`, also where shape and texture disagree.

    Args:
        scene: the cue fields.
        config: gives the amplitudes, the placement and the cue that is the label.
        **changed: amplitudes that replace those of `config`, such as `texture_amplitude=0.0`.
    """
    amplitudes = {
        "shape_amplitude": config.shape_amplitude,
        "texture_amplitude": config.texture_amplitude,
        "colour_amplitude": config.colour_amplitude,
        "noise": config.noise,
    }
    images = quantised(scene, placement=config.placement, **(amplitudes | changed))
    return Split(images=images, labels=scene.factors[config.label_cue], factors=scene.factors)


def test_sets(config: ShapeTex, *, limit: int | None = None) -> dict[str, Split]:  # noqa: PT028 (no test)
    """Generate the diagnostic test sets; none of their poses and random textures occurs in training.

    Args:
        config: which images to generate.
        limit: keep only the first images of each set.

    Returns:
        "redundant" (shape and texture agree), "conflict" (they never do), "factorial" (all pairs), and the redundant
        images without one cue: "shape_suppressed" (a_S = 0) and "texture_suppressed" (a_T = 0). With the placement
        "foreground" or "background" the texture still ends at the outline of the shape, so that the shape remains
        visible in "shape_suppressed".
    """
    redundant = scene(config, "redundant", limit=limit)
    return {
        "redundant": split(redundant, config),
        "conflict": split(scene(config, "conflict", limit=limit), config),
        "factorial": split(scene(config, "factorial", limit=limit), config),
        "shape_suppressed": split(redundant, config, shape_amplitude=0.0),
        "texture_suppressed": split(redundant, config, texture_amplitude=0.0),
    }


@register("shapetex")
def dataset(config: ShapeTex | None = None, *, limit: int | None = None) -> Dataset:
    """Generate the training and test images as a `Dataset`.

    Classes are balanced in the first 10 k images for every k.

    Args:
        config: which images to generate; by default `ShapeTex()`.
        limit: keep only the first images of either split.
    """
    config = config or ShapeTex()
    return Dataset(
        name="shapetex",
        train=split(scene(config, "train", limit=limit), config),
        test=split(scene(config, "test", limit=limit), config),
        class_names=config.class_names,
    )
