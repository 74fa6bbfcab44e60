"""Crops and flips against an independent numpy version, and the order of an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.data import Augmentation, augment, augmentation_for, epoch_order, to_float
from mi_jax.errors import InputError

IMAGES = np.random.default_rng(0).integers(1, 256, (400, 6, 5, 3)).astype(np.uint8)


def every_crop(image: np.ndarray, pad: int) -> dict[bytes, tuple[int, int, bool]]:
    """All crops of the padded image and their mirror images, by content."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    found = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[top : top + height, left : left + width]
            found[crop.tobytes()] = (top, left, False)
            found[crop[:, ::-1].tobytes()] = (top, left, True)
    return found


def test_every_result_is_a_crop_and_all_crops_are_equally_likely(key):
    result = np.asarray(jax.jit(augment, static_argnames=("pad", "flip"))(IMAGES, key, pad=2, flip=True))
    drawn = [every_crop(image, 2)[crop.tobytes()] for image, crop in zip(IMAGES, result, strict=True)]
    top, left, mirrored = np.array(drawn).T
    for offsets in (top, left):  # 5 outcomes in 400 draws: 80 +- 8
        np.testing.assert_allclose(np.bincount(offsets, minlength=5), 80, atol=32)
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.2


def test_bytes_and_floats_are_treated_alike_and_keep_their_type(key):
    floats = augment(IMAGES / np.float32(255), key, pad=1, flip=True)
    bytes_ = augment(IMAGES, key, pad=1, flip=True)
    assert bytes_.dtype == jnp.uint8
    assert floats.dtype == jnp.float32
    np.testing.assert_array_equal(floats, IMAGES.dtype.type(0) + np.asarray(bytes_) / np.float32(255))


def test_no_augmentation_leaves_images_alone(key):
    np.testing.assert_array_equal(augment(IMAGES, key, pad=0, flip=False), IMAGES)


def test_flip_alone_mirrors_columns_only(key):
    result = np.asarray(augment(IMAGES, key, pad=0, flip=True))
    mirrored = np.array([np.array_equal(r, i[:, ::-1]) for r, i in zip(result, IMAGES, strict=True)])
    assert 0.4 < mirrored.mean() < 0.6
    np.testing.assert_array_equal(result[~mirrored], IMAGES[~mirrored])


def test_augmentation_depends_on_the_key_alone(key):
    first, again = (augment(IMAGES, key, pad=2, flip=True) for _ in range(2))
    other = augment(IMAGES, jax.random.key(1), pad=2, flip=True)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_defaults_by_dataset_are_the_papers():
    for name in ("cifar10", "stl10", "cifar10:3.0.2"):
        assert augmentation_for(name) == Augmentation(pad=4, flip=True)
    for name in ("mnist", "shapetex", "digits", "fashion_mnist"):
        assert augmentation_for(name) == Augmentation(pad=0, flip=False)
    assert augmentation_for("svhn_cropped") == Augmentation(pad=4, flip=False)


def test_to_float_divides_by_255_once():
    np.testing.assert_allclose(to_float(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], rtol=1e-7)
    with pytest.raises(InputError, match=r"Pixels must be uint8 to be scaled to .*; got float32"):
        to_float(np.ones(3, np.float32))


def test_epoch_order_visits_every_image_once_and_differs_between_epochs(key):
    orders = [np.asarray(epoch_order(key, epoch, 100)) for epoch in range(3)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(100))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_epoch_order_is_the_same_traced_or_not(key):
    traced = jax.jit(epoch_order, static_argnums=2)(key, jnp.int32(5), 64)
    np.testing.assert_array_equal(traced, epoch_order(key, 5, 64))


def test_wrong_arguments_are_named(key):
    with pytest.raises(InputError, match=r"Images must have shape \[b, h, w, c\]"):
        augment(IMAGES[0], key, pad=1, flip=False)
    with pytest.raises(InputError, match=r"Invalid .*pad -1: expected a whole number of at least 0"):
        augment(IMAGES, key, pad=-1, flip=False)
    with pytest.raises(InputError, match=r"Invalid .*pad -1: expected a whole number of at least 0"):
        Augmentation(pad=-1)


@pytest.mark.usefixtures("as_a_user")
def test_a_seed_is_the_key_that_it_makes():
    batch = np.arange(2 * 6 * 6, dtype=np.uint8).reshape(2, 6, 6, 1)
    by_seed, by_key = (augment(batch, key, pad=2, flip=True) for key in (3, jax.random.key(3)))
    np.testing.assert_array_equal(by_seed, by_key)
    np.testing.assert_array_equal(epoch_order(3, 1, 9), epoch_order(jax.random.key(3), 1, 9))
    with pytest.raises(InputError, match=r"^Invalid key None: expected a JAX random key or an integer seed"):
        epoch_order(None, 1, 9)


@pytest.mark.usefixtures("as_a_user")
def test_pixels_and_flips_of_another_kind_are_refused(key):
    for wrong in ("no", 1):
        with pytest.raises(InputError, match=rf"^Invalid augmentation\.flip {wrong!r}: expected True or False"):
            Augmentation(flip=wrong)
        with pytest.raises(InputError, match=rf"^Invalid flip {wrong!r}: expected True or False"):
            augment(np.zeros((1, 2, 2, 1)), key, pad=0, flip=wrong)
    with pytest.raises(InputError, match=r"^Pixels must be an array, not str"):
        to_float("pixels")
    with pytest.raises(InputError, match=r"^Invalid dataset_name 3: expected a string, such as cifar10"):
        augmentation_for(3)


@pytest.mark.parametrize(
    ("epoch", "n", "sentence"),
    [
        (-1, 4, "epoch -1: expected a whole number of at least 0"),
        (0.5, 4, "epoch 0.5: expected a whole number of at least 0"),
        (None, 4, "epoch None: expected a whole number of at least 0"),
        (0, 4.5, "n 4.5: expected a whole number of at least 0"),
        (0, -1, "n -1: expected a whole number of at least 0"),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_epochs_and_sizes_that_are_no_counts_are_refused(key, epoch, n, sentence):
    with pytest.raises(InputError, match=f"^Invalid {sentence}"):
        epoch_order(key, epoch, n)
