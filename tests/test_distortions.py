"""Distortions against closed forms, their own inverses, and separate implementations in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mi_jax as mj
from mi_jax.errors import InputError

d = mj.distortions
IMAGES = np.random.default_rng(0).uniform(0, 1, (5, 12, 8, 3)).astype(np.float32)
NARROW = (0.45 + 0.1 * IMAGES).astype(np.float32)  # so near grey that no filter leaves [0, 1]
EVERY = {
    "saturate": functools.partial(d.saturate, p=8.0),
    "patch_shuffle": functools.partial(d.patch_shuffle, k=2, key=jax.random.key(1)),
    "low_pass": functools.partial(d.low_pass, cutoff=2.0),
    "high_pass": functools.partial(d.high_pass, cutoff=2.0),
    "phase_scramble": functools.partial(d.phase_scramble, strength=0.7, key=jax.random.key(1)),
    "greyscale": d.greyscale,
    "gaussian_noise": functools.partial(d.gaussian_noise, std=0.3, key=jax.random.key(1)),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_distortion_keeps_shape_type_and_range_and_is_the_same_under_jit(name):
    eager = EVERY[name](IMAGES)
    jitted = jax.jit(EVERY[name])(IMAGES)
    assert (eager.shape, eager.dtype) == (IMAGES.shape, jnp.float32)
    assert 0 <= float(eager.min()) <= float(eager.max()) <= 1
    np.testing.assert_allclose(eager, jitted, atol=2e-6)
    assert np.abs(np.asarray(eager) - IMAGES).max() > 0.05


@pytest.mark.parametrize("name", EVERY)
def test_no_distortion_changes_what_it_is_given(name):
    before = IMAGES.copy()
    EVERY[name](IMAGES)
    np.testing.assert_array_equal(IMAGES, before)


def test_saturation_in_closed_form():
    x = np.array([0, 0.125, 0.25, 0.5, 0.75, 1.0], np.float32).reshape(1, 1, 6, 1)

    def at(p):
        return np.asarray(d.saturate(x, p)).ravel()

    np.testing.assert_allclose(at(2), x.ravel(), atol=1e-7)
    np.testing.assert_allclose(
        at(4), [0, 0.5 - np.sqrt(0.75) / 2, 0.5 - np.sqrt(0.5) / 2, 0.5, 0.5 + np.sqrt(0.5) / 2, 1], atol=1e-7
    )
    np.testing.assert_allclose(at(1), [0, 0.5 - 0.75**2 / 2, 0.375, 0.5, 0.625, 1], atol=1e-7)
    np.testing.assert_array_equal(at(np.inf), [0, 0, 0, 0.5, 1, 1])
    v = x.astype(np.float64).ravel()
    np.testing.assert_allclose(at(1024), 0.5 + np.sign(2 * v - 1) * np.abs(2 * v - 1) ** (2 / 1024) / 2, atol=1e-6)


def test_saturations_compose_and_invert():
    twice = d.saturate(d.saturate(IMAGES, 3.0), 8.0)
    np.testing.assert_allclose(twice, d.saturate(IMAGES, 12.0), atol=1e-5)
    np.testing.assert_allclose(d.saturate(d.saturate(IMAGES, 3.0), 4 / 3), IMAGES, atol=1e-5)


def test_saturation_level_may_be_traced():
    levels = jax.vmap(lambda p: d.saturate(IMAGES, p))(jnp.array([2.0, 8.0]))
    np.testing.assert_allclose(levels[1], d.saturate(IMAGES, 8.0), atol=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, 8.0, np.inf])
def test_saturation_has_a_finite_gradient_at_grey(p):
    x = jnp.array([0.25, 0.5]).reshape(1, 1, 2, 1)
    by_pixel, by_level = jax.grad(lambda x, p: d.saturate(x, p).sum(), argnums=(0, 1))(x, p)
    np.testing.assert_allclose(by_pixel.ravel(), [2 / p * 0.5 ** (2 / p - 1), 0], rtol=1e-6)
    assert np.isfinite(by_level)


def shuffled_by_hand(x: np.ndarray, permutations: np.ndarray, k: int) -> np.ndarray:
    """Patch by patch with plain loops."""
    height, width = x.shape[1] // k, x.shape[2] // k
    result = np.zeros_like(x)
    for image in range(len(x)):
        for place, patch in enumerate(permutations[image]):
            (to_row, to_column), (row, column) = divmod(place, k), divmod(int(patch), k)
            result[image, to_row * height : (to_row + 1) * height, to_column * width : (to_column + 1) * width] = x[
                image, row * height : (row + 1) * height, column * width : (column + 1) * width
            ]
    return result


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_patches_move_as_by_hand_and_come_back_by_the_inverse(key, k, shared):
    permutations = d.patch_permutations(key, 5, k, shared=shared)
    shuffled = d.patch_shuffle(IMAGES, k, key, shared=shared)
    np.testing.assert_array_equal(shuffled, shuffled_by_hand(IMAGES, np.asarray(permutations), k))
    np.testing.assert_array_equal(d.permute_patches(shuffled, jnp.argsort(permutations, axis=1)), IMAGES)


def test_same_key_moves_the_patches_of_any_images_alike(key):
    """What is compared across models and levels must differ by nothing but the images."""
    place = np.broadcast_to((np.arange(96) / 96).astype(np.float32).reshape(1, 12, 8, 1), IMAGES.shape)
    moved = np.asarray(d.patch_shuffle(place, 4, key))[..., 0]
    source = np.round(moved * 96).astype(int).reshape(5, -1)
    expected = np.take_along_axis(IMAGES.reshape(5, 96, 3), source[..., None], axis=1).reshape(IMAGES.shape)
    np.testing.assert_array_equal(d.patch_shuffle(IMAGES, 4, key), expected)
    np.testing.assert_array_equal(d.patch_shuffle(IMAGES[:3], 4, key), expected[:3])


def test_permutations_are_even_over_all_arrangements_and_independent_between_images(key):
    drawn = np.asarray(d.patch_permutations(key, 4800, 2))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 24
    np.testing.assert_allclose(counts, 200, atol=6 * np.sqrt(200))
    alike = np.mean(np.all(drawn[:-1] == drawn[1:], axis=1))
    assert alike == pytest.approx(1 / 24, abs=0.015)
    assert len(np.unique(d.patch_permutations(key, 50, 4, shared=True), axis=0)) == 1


def frequencies(height: int, width: int) -> np.ndarray:
    y, x = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    return np.sqrt(y**2 + x**2) * height


@pytest.mark.parametrize("cutoff", [0.0, 1.0, 2.5, 4.0])
def test_frequency_bands_agree_with_a_float64_transform(cutoff):
    spectrum = np.fft.fft2(NARROW.astype(np.float64), axes=(1, 2))
    radius = frequencies(12, 8)[None, :, :, None]
    low = np.fft.ifft2(spectrum * (radius <= cutoff), axes=(1, 2)).real
    high = np.fft.ifft2(spectrum * ((radius > cutoff) | (radius == 0)), axes=(1, 2)).real
    np.testing.assert_allclose(d.low_pass(NARROW, cutoff), low, atol=1e-6)
    np.testing.assert_allclose(d.high_pass(NARROW, cutoff), high, atol=1e-6)


@pytest.mark.parametrize("name", ["low_pass", "high_pass"])
def test_bands_of_half_precision_images_are_those_of_the_wide_ones(name):
    band, half = getattr(d, name), jnp.asarray(IMAGES, jnp.bfloat16)
    found = band(half, 3.0)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, band(half.astype(jnp.float32), 3.0).astype(jnp.bfloat16))


def test_a_wave_passes_below_its_frequency_and_not_above():
    wave = 0.5 + 0.3 * np.cos(2 * np.pi * 3 * np.arange(32) / 32)  # 3 cycles per image
    image = np.broadcast_to(wave[None, :, None, None], (1, 32, 32, 1)).astype(np.float32)
    np.testing.assert_allclose(d.low_pass(image, 3.01), image, atol=1e-6)
    np.testing.assert_allclose(d.low_pass(image, 2.99), 0.5, atol=1e-6)
    np.testing.assert_allclose(d.high_pass(image, 2.99), image, atol=1e-6)
    np.testing.assert_allclose(d.high_pass(image, 3.01), 0.5, atol=1e-6)


def test_filters_are_idempotent_and_complete():
    for name in ("low_pass", "high_pass"):
        once = getattr(d, name)(NARROW, 2.5)
        np.testing.assert_allclose(getattr(d, name)(once, 2.5), once, atol=1e-6)
    mean = NARROW.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(d.low_pass(NARROW, 2.5) + d.high_pass(NARROW, 2.5) - mean, NARROW, atol=1e-6)
    np.testing.assert_allclose(d.low_pass(IMAGES, 99.0), IMAGES, atol=1e-6)
    np.testing.assert_allclose(d.high_pass(IMAGES, 0.0), IMAGES, atol=1e-6)
    np.testing.assert_allclose(
        d.low_pass(IMAGES, 0.0), np.broadcast_to(IMAGES.mean((1, 2), keepdims=True), IMAGES.shape), atol=1e-6
    )


@pytest.mark.parametrize("shape", [(3, 12, 8, 3), (3, 7, 9, 1)])
def test_phase_scrambling_keeps_every_amplitude_and_is_real(key, shape):
    x = (0.5 + 0.02 * np.random.default_rng(1).uniform(-1, 1, shape)).astype(np.float32)
    scrambled = np.asarray(d.phase_scramble(x, 1.0, key), np.float64)
    before, after = (np.abs(np.fft.fft2(images, axes=(1, 2))) for images in (x.astype(np.float64), scrambled))
    np.testing.assert_allclose(after, before, atol=2e-4)
    assert np.abs(scrambled - x).max() > 0.01


def test_phase_scrambling_turns_every_frequency_evenly_within_its_strength(key):
    x = (0.5 + 0.02 * np.random.default_rng(1).uniform(-1, 1, (200, 8, 8, 3))).astype(np.float32)
    for strength in (1.0, 0.25):
        scrambled = np.asarray(d.phase_scramble(x, strength, key), np.float64)
        turned = np.fft.fft2(scrambled, axes=(1, 2)) / np.fft.fft2(x.astype(np.float64), axes=(1, 2))
        angle = np.angle(turned[:, 1:4, 1:4]) / np.pi
        np.testing.assert_allclose(angle[..., 1], angle[..., 0], atol=0.02)  # channels turn together
        angle = angle[..., 0].ravel()
        assert np.abs(angle).max() <= strength + 0.01
        assert np.std(angle) == pytest.approx(strength / np.sqrt(3), rel=0.05)
    np.testing.assert_allclose(d.phase_scramble(IMAGES, 0.0, key), IMAGES, atol=1e-6)


def test_greyscale_is_luminance_and_idempotent():
    grey = np.asarray(d.greyscale(IMAGES))
    expected = IMAGES.astype(np.float64) @ [0.299, 0.587, 0.114]
    for channel in range(3):
        np.testing.assert_allclose(grey[..., channel], expected, atol=1e-6)
    np.testing.assert_allclose(d.greyscale(grey), grey, atol=1e-6)
    np.testing.assert_array_equal(d.greyscale(IMAGES[..., :1]), IMAGES[..., :1])


def test_gaussian_noise_has_the_deviation_it_says_and_is_the_same_for_any_images(key):
    grey = np.full((40, 16, 16, 3), 0.5, np.float32)
    noise = np.asarray(d.gaussian_noise(grey, 0.05, key)) - 0.5
    assert noise.mean() == pytest.approx(0, abs=5 * 0.05 / np.sqrt(noise.size))
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    other = np.asarray(d.gaussian_noise(grey - 0.1, 0.05, key)) - 0.4
    np.testing.assert_allclose(noise, other, atol=1e-6)
    np.testing.assert_allclose(np.asarray(d.gaussian_noise(grey[:7], 0.05, key)) - 0.5, noise[:7], atol=1e-7)
    np.testing.assert_array_equal(d.gaussian_noise(IMAGES, 0.0, key), IMAGES)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_noise_on_half_precision_images_is_that_on_the_wide_ones(key, dtype):
    half = jnp.asarray(IMAGES, dtype)
    found = d.gaussian_noise(half, 0.1, key)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, d.gaussian_noise(half.astype(jnp.float32), 0.1, key).astype(dtype))


def test_noise_of_every_strength_is_the_same_noise(key):
    grey = np.full((2, 8, 8, 1), 0.5, np.float32)
    weak, strong = (np.asarray(d.gaussian_noise(grey, std, key)) - 0.5 for std in (0.01, 0.02))
    np.testing.assert_allclose(strong, 2 * weak, atol=1e-6)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("name", EVERY)
def test_arrays_that_are_not_images_in_range_are_refused(name):
    for wrong, says in (
        (IMAGES[0], r"have shape \[b, h, w, c\]"),
        ((IMAGES * 255).astype(np.uint8), "be floating, .* not uint8"),
        (2 * IMAGES, r"lie in \[0, 1\]; got values from"),
        (IMAGES - 0.5, r"lie in \[0, 1\]; got values from"),
        (np.where(IMAGES > 0.9, np.nan, IMAGES), "hold NaN"),
    ):
        with pytest.raises(InputError, match=f"^Images must .*{says}"):
            EVERY[name](wrong)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, key: d.saturate(x, 0.0), "Invalid p 0.0: expected a number above 0"),
        (lambda x, key: d.patch_shuffle(x, 3, key), "12 x 8 cannot be cut into 3 x 3 equal patches; k may be 1, 2, 4"),
        (lambda x, key: d.patch_shuffle(x, 0, key), "Invalid k 0: expected a whole number of at least 1"),
        (lambda x, key: d.patch_shuffle(x, 2.0, key), "Invalid k 2.0: expected a whole number of at least 1"),
        (lambda x, key: d.patch_permutations(key, 0, 2), "Invalid n 0: expected a whole number of at least 1"),
        (lambda x, key: d.patch_permutations(key, 3, -2), "Invalid k -2: expected a whole number of at least 1"),
        (lambda x, key: d.permute_patches(x, np.tile(np.arange(4.0), (5, 1))), "must be integers, not float64"),
        (lambda x, key: d.permute_patches(x, np.zeros((5, 4), int)), r"every number from 0 to 3 once"),
        (lambda x, key: d.permute_patches(x, np.zeros((5, 3), int)), r"must have shape \[5, k \* k\], one per image"),
        (lambda x, key: d.low_pass(x, -1.0), "Invalid cutoff -1.0: expected a number of at least 0"),
        (lambda x, key: d.high_pass(x, -1.0), "Invalid cutoff -1.0: expected a number of at least 0"),
        (lambda x, key: d.phase_scramble(x, 1.5, key), r"Invalid strength 1.5: expected a number in \[0, 1\]"),
        (lambda x, key: d.greyscale(x[..., :2]), "1 or 3 channels for greyscale; got 2"),
        (lambda x, key: d.gaussian_noise(x, -0.1, key), r"Invalid std -0.1: expected a number in \[0, 1\]"),
        (lambda x, key: d.gaussian_noise(x, 8, key), r"Invalid std 8: expected a number in \[0, 1\], such as 8/255"),
    ],
)
def test_levels_out_of_range_are_refused(key, call, says):
    with pytest.raises(InputError, match=says):
        call(IMAGES, key)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    "level", ["0.5", None, True, 0.5j, np.nan, [0.5] * 5, np.full(3, 0.5), np.full((5, 1, 1, 1), 0.5)]
)
@pytest.mark.parametrize("name", ["saturate", "low_pass", "high_pass", "phase_scramble", "gaussian_noise"])
def test_a_level_is_one_number(name, level, key):
    """One for each image would be read as one for each channel or frequency."""
    keys = (key,) if name in ("phase_scramble", "gaussian_noise") else ()
    with pytest.raises(InputError, match=r"^Invalid .*: expected a number"):
        getattr(d, name)(IMAGES, level, *keys)
    for number in (1, np.float64(0.5), np.array(0.5), np.array(0.5, ">f8"), np.longdouble(0.5), jnp.float32(0.5)):
        np.testing.assert_array_equal(
            getattr(d, name)(IMAGES, number, *keys), getattr(d, name)(IMAGES, float(number), *keys)
        )
