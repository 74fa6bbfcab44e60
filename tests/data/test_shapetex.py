"""ShapeTex against closed forms and independent renderings: areas, zero means, balance, and x = 1/2 + ... itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.data import shapetex
from mi_jax.data.shapetex import COARSE_TEXTURES, SHAPES, TEXTURES, ShapeTex
from mi_jax.data.shapetex.shapes import FRAMES, mask, signed_distance
from mi_jax.errors import InputError

SMALL = ShapeTex(n_train=300, n_test=200)
SETS = ("redundant", "conflict", "factorial", "shape_suppressed", "texture_suppressed")


@pytest.fixture(scope="module")
def every_pair():
    """Scenes of all 100 pairs of shape and texture, five of each, in both families of textures."""
    pairs = np.array(list(itertools.product(range(10), range(10))) * 5, np.int32)
    factors = {"shape": pairs[:, 0], "texture": pairs[:, 1], "colour": pairs[:, 1]}
    return {scale: shapetex.draw(factors, jax.random.key(3), scale=scale) for scale in ("fine", "coarse")}


@pytest.fixture(scope="module")
def sets():
    return shapetex.test_sets(SMALL)


@pytest.fixture(scope="module")
def masks_of():
    return jax.jit(
        jax.vmap(lambda shape, shift, angle, scale: mask(shape, shift=shift, angle=angle, scale=scale)),
    )


def inside(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each shape as a plain predicate, written apart from the signed distances."""
    radius = np.hypot(x, y)
    if name in ("disk", "ring", "crescent"):
        return (radius < 1) & {"disk": True, "ring": radius > 0.5, "crescent": np.hypot(x - 0.5, y) > 0.7}[name]
    if name == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 1
    if name == "triangle":
        return (y < 0.5) & (np.abs(x) < (y + 1) / np.sqrt(3))
    if name == "plus":
        return (np.minimum(np.abs(x), np.abs(y)) < 1 / 3) & (np.maximum(np.abs(x), np.abs(y)) < 1)
    if name == "star":  # polar: the straight edge from a tip (radius 1) to a notch (radius 1/2, 36 degrees on)
        angle = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        return radius * (0.5 * np.sin(np.pi / 5 - angle) + np.sin(angle)) < 0.5 * np.sin(np.pi / 5)
    if name == "heart":
        lobes = np.minimum(np.hypot(x - 0.5, y + 0.5), np.hypot(x + 0.5, y + 0.5)) < np.sqrt(0.5)
        return lobes | (np.abs(x) + np.abs(y) < 1)
    if name == "hourglass":
        return (np.abs(y) < 1) & (np.abs(x) < 0.15 + 0.85 * np.abs(y))
    assert name == "u"
    return (np.maximum(np.abs(x), np.abs(y)) < 1) & ~((np.abs(x) < 0.45) & (y < 0.45))


@pytest.mark.parametrize("name", SHAPES)
def test_sign_of_distance_agrees_with_a_plain_predicate(name):
    x, y = np.meshgrid(np.linspace(-1.3, 1.3, 301), np.linspace(-1.3, 1.3, 301))
    distance = np.asarray(signed_distance(jnp.asarray(x), jnp.asarray(y), jnp.int32(SHAPES.index(name))))
    away_from_edges = np.abs(distance) > 1e-4
    assert np.array_equal((distance < 0)[away_from_edges], inside(name, x, y)[away_from_edges])


@pytest.mark.parametrize("name", SHAPES)
def test_areas_and_centroids_in_closed_form_agree_with_counting(name):
    step = 2.6 / 1500
    grid = (np.arange(1500) + 0.5) * step - 1.3
    x, y = np.meshgrid(grid, grid)
    covered = inside(name, x, y)
    centroid_x, centroid_y, pixels = FRAMES[SHAPES.index(name)]
    assert covered.sum() * step**2 * pixels**2 == pytest.approx(230, abs=0.4)
    assert x[covered].mean() == pytest.approx(centroid_x, abs=1e-3)
    assert y[covered].mean() == pytest.approx(centroid_y, abs=1e-3)


def test_signed_distances_in_closed_form():
    def at(name, x, y):
        return float(signed_distance(jnp.full((1, 1), x), jnp.full((1, 1), y), jnp.int32(SHAPES.index(name)))[0, 0])

    assert at("disk", 0.0, 0.0) == pytest.approx(-1.0)
    assert at("square", 0.0, 0.25) == pytest.approx(-0.75)
    assert at("square", 2.0, 2.0) == pytest.approx(np.sqrt(2), rel=1e-6)
    assert at("ring", 0.0, 0.0) == pytest.approx(0.5)
    assert at("ring", 0.75, 0.0) == pytest.approx(-0.25)
    assert at("triangle", 0.0, 0.0) == pytest.approx(-0.5, rel=1e-6)  # the inradius of circumradius 1
    assert at("plus", 0.0, 2.0) == pytest.approx(1.0)


def test_every_shape_covers_230_pixels_at_every_position(masks_of):
    shape = np.repeat(np.arange(10), 20)
    shift = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    nothing = np.zeros(200, np.float32)
    area = np.asarray(masks_of(shape, shift, nothing, nothing + 1)).sum(axis=(1, 2)).reshape(10, 20)
    np.testing.assert_allclose(area.mean(axis=1), 230, atol=1.0)
    np.testing.assert_allclose(area, 230, atol=2.0)


def test_mean_luminance_does_not_depend_on_the_shape(every_pair):
    """The mean coverages of all shapes agree within five standard errors, including clipping at the borders."""
    area = np.asarray(every_pair["fine"].mask).sum(axis=(1, 2)).reshape(5, 10, 10)
    spread = area.std() / np.sqrt(50)
    assert np.ptp(area.mean(axis=(0, 2))) < 5 * spread


def test_pose_stays_within_its_range_and_moves_the_centroid(every_pair):
    disks = np.asarray(every_pair["fine"].mask)[every_pair["fine"].factors["shape"] == 0]
    area = disks.sum(axis=(1, 2))
    scale = np.sqrt(area / 230)
    assert 0.87 < scale.min() < 0.93
    assert 1.07 < scale.max() < 1.13
    centre = np.arange(32) - 15.5
    shift = np.stack([(disks.sum(axis=1) * centre).sum(axis=1), (disks.sum(axis=2) * centre).sum(axis=1)]) / area
    assert np.abs(shift).max() < 3.02
    assert np.abs(shift).max() > 2.0


def test_rotation_is_clockwise_about_the_centroid_and_exact_at_a_right_angle(masks_of):
    shape = np.full(2, SHAPES.index("u"))
    turned = masks_of(shape, np.zeros((2, 2)), np.array([0, np.pi / 2], np.float32), np.ones(2))
    np.testing.assert_allclose(turned[1], np.rot90(turned[0], k=-1), atol=2e-4)


@pytest.mark.parametrize("scale", ["fine", "coarse"])
def test_textures_are_plus_minus_one_with_mean_exactly_zero(every_pair, scale):
    texture = np.asarray(every_pair[scale].texture)
    assert set(np.unique(texture)) == {-1.0, 1.0}
    assert np.all(texture.sum(axis=(1, 2)) == 0)


def periods(field: np.ndarray) -> tuple[int, int]:
    """The least shifts that leave a field unchanged, down and to the right (32 where there is none below)."""
    down, right = (
        next(shift for shift in range(1, 33) if np.array_equal(np.roll(field, shift, axis), field)) for axis in (0, 1)
    )
    return down, right


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("fine", [(4, 1), (1, 4), (4, 4), (4, 4), (8, 1), (1, 8), (4, 4), (8, 8), (32, 32), (32, 32)]),
        ("coarse", [(8, 1), (1, 8), (8, 8), (8, 8), (16, 1), (1, 16), (8, 8), (16, 16), (32, 32), (32, 32)]),
    ],
)
def test_textures_have_the_periods_of_their_names(every_pair, scale, expected):
    scene = every_pair[scale]
    for index, want in enumerate(expected):
        fields = np.asarray(scene.texture)[scene.factors["texture"] == index]
        assert {periods(field) for field in fields} == {want}


def test_diagonals_lean_opposite_ways(every_pair):
    scene = every_pair["fine"]
    diagonal = np.asarray(scene.texture)[scene.factors["texture"] == TEXTURES.index("diagonal4")][0]
    other = np.asarray(scene.texture)[scene.factors["texture"] == TEXTURES.index("antidiagonal4")][0]
    assert np.array_equal(np.roll(diagonal, (1, -1), (0, 1)), diagonal)
    assert np.array_equal(np.roll(other, (1, 1), (0, 1)), other)


def test_coarse_textures_have_no_feature_below_four_pixels(every_pair):
    scene = every_pair["coarse"]
    blocks = np.asarray(scene.texture)[scene.factors["texture"] == COARSE_TEXTURES.index("noise4")]
    for field in blocks:
        phases = [np.roll(field, (down, right), (0, 1)) for down in range(4) for right in range(4)]
        assert any(np.array_equal(np.kron(p[::4, ::4], np.ones((4, 4))), p) for p in phases)


def test_camouflage_has_frequencies_of_its_band_only_and_noise_is_white(every_pair):
    for scale, low, high in (("fine", 2.5, 4.5), ("coarse", 1.5, 2.5)):
        scene = every_pair[scale]
        cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(32, 1 / 32), np.fft.fftfreq(32, 1 / 32)))
        camouflage = np.asarray(scene.texture)[scene.factors["texture"] == TEXTURES.index("camouflage")]
        power = (np.abs(np.fft.fft2(camouflage)) ** 2).mean(axis=0)
        assert power[(cycles >= low) & (cycles <= high)].sum() / power.sum() > 0.6
    noise = np.asarray(every_pair["fine"].texture)[every_pair["fine"].factors["texture"] == TEXTURES.index("noise")]
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    assert power[cycles > 10].mean() == pytest.approx(power[(cycles < 10) & (cycles > 0)].mean(), rel=0.15)


def test_random_textures_are_all_different(every_pair):
    scene = every_pair["fine"]
    random = np.asarray(scene.texture)[scene.factors["texture"] >= 8]
    assert len(np.unique(random.reshape(len(random), -1), axis=0)) == len(random)


def test_hues_are_orthogonal_to_grey_evenly_spaced_and_of_unit_norm():
    hue = shapetex.hues()
    np.testing.assert_allclose(hue.sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(hue).max(axis=1), 1, atol=1e-6)
    unit = hue / np.linalg.norm(hue, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sum(unit * np.roll(unit, -1, axis=0), axis=1), np.cos(2 * np.pi / 10), atol=1e-6)


@pytest.mark.parametrize("placement", ["global", "foreground", "background"])
def test_images_are_the_formula_in_float64(every_pair, placement):
    scene = every_pair["fine"]
    weight = {"global": 1.0, "foreground": scene.mask, "background": 1.0 - scene.mask}[placement]
    grey = 0.5 + 0.1 * (2 * np.asarray(scene.mask, np.float64) - 1) + 0.05 * np.asarray(weight) * scene.texture
    expected = grey[..., None] + 0.2 * scene.hue[:, None, None, :] + 0.3 * np.asarray(scene.noise, np.float64)
    images = shapetex.compose(
        scene,
        shape_amplitude=0.1,
        texture_amplitude=0.05,
        colour_amplitude=0.2,
        noise=0.3,
        placement=placement,
    )
    np.testing.assert_allclose(images, np.clip(expected, 0, 1), atol=1e-6)


def test_erasing_the_texture_needs_a_perturbation_of_exactly_its_amplitude(every_pair):
    """Adding delta = -a_T t_T turns an image into its texture-suppressed version; its L-infinity norm is a_T."""
    scene = every_pair["fine"]
    with_texture = shapetex.compose(scene, shape_amplitude=20 / 255, texture_amplitude=8 / 255)
    without = shapetex.compose(scene, shape_amplitude=20 / 255, texture_amplitude=0.0)
    delta = np.asarray(without) - np.asarray(with_texture)
    np.testing.assert_allclose(np.abs(delta), 8 / 255, atol=1e-6)
    np.testing.assert_allclose(np.sqrt((delta**2).sum(axis=(1, 2, 3))), 8 / 255 * np.sqrt(3072), rtol=1e-4)


def test_amplitudes_can_be_mapped_over_one_scene(every_pair):
    scene = jax.tree.map(lambda values: values[:3], every_pair["fine"])
    amplitudes = jnp.array([0.0, 0.1])
    grid = jax.jit(
        jax.vmap(lambda a: shapetex.compose(scene, shape_amplitude=a, texture_amplitude=0.1 - a, noise=0.0))
    )(amplitudes)
    assert grid.shape == (2, 3, 32, 32, 3)
    np.testing.assert_allclose(grid[0, ..., 0], 0.5 + 0.1 * scene.texture, atol=1e-6)
    np.testing.assert_allclose(grid[1, ..., 0], 0.5 + 0.1 * scene.shape, atol=1e-6)


def test_uint8_images_are_the_float_images_rounded():
    scene = shapetex.scene(SMALL, "test")
    split = shapetex.split(scene, SMALL)
    exact = shapetex.compose(scene, shape_amplitude=SMALL.shape_amplitude, texture_amplitude=SMALL.texture_amplitude)
    assert split.images.dtype == np.uint8
    assert np.abs(split.images / 255 - np.asarray(exact)).max() <= 0.5 / 255 + 1e-6


def test_redundant_training_set_is_balanced_in_every_ten():
    factors = shapetex.factors(SMALL, "train")
    assert np.array_equal(factors["shape"], factors["texture"])
    for cue in ("shape", "texture", "colour"):
        assert factors[cue].dtype == np.int32
        assert np.array_equal(np.sort(factors[cue].reshape(-1, 10), axis=1), np.tile(np.arange(10), (30, 1)))
    assert np.mean(factors["colour"] == factors["shape"]) < 0.25


def test_conflict_set_contains_each_of_the_90_pairs_equally_often(sets):
    factors = sets["conflict"].factors
    pairs, counts = np.unique(factors["shape"] * 10 + factors["texture"], return_counts=True)
    assert len(sets["conflict"]) == 180
    assert set(pairs) == {10 * s + t for s in range(10) for t in range(10) if s != t}
    assert np.all(counts == 2)


def test_factorial_set_has_entropy_log2_10_and_no_mutual_information(sets):
    factors = sets["factorial"].factors
    joint = np.zeros((10, 10))
    np.add.at(joint, (factors["shape"], factors["texture"]), 1 / len(sets["factorial"]))
    np.testing.assert_allclose(joint, 0.01)


def test_suppressed_sets_are_the_redundant_images_without_one_cue(sets):
    assert set(sets) == set(SETS)
    redundant = sets["redundant"].images.astype(int)
    texture = np.asarray(shapetex.scene(SMALL, "redundant").texture)[..., None]
    shape = np.asarray(shapetex.scene(SMALL, "redundant").shape)[..., None]
    assert (
        np.abs(redundant - sets["texture_suppressed"].images - 255 * SMALL.texture_amplitude * texture).max() <= 1.001
    )
    assert np.abs(redundant - sets["shape_suppressed"].images - 255 * SMALL.shape_amplitude * shape).max() <= 1.001
    for name in ("shape_suppressed", "texture_suppressed"):
        assert np.array_equal(sets[name].labels, sets["redundant"].labels)


def test_test_images_share_no_mask_and_no_random_texture_with_training():
    train, test = shapetex.scene(SMALL, "train"), shapetex.scene(SMALL, "test")

    def distinct(first, second):
        both = np.concatenate([first, second]).reshape(len(first) + len(second), -1)
        return len(np.unique(both, axis=0)) == len(both)

    assert distinct(train.mask, test.mask)
    assert distinct(train.texture[train.factors["texture"] >= 8], test.texture[test.factors["texture"] >= 8])
    assert distinct(train.noise, test.noise)


def test_the_test_split_is_the_redundant_set_in_the_redundant_regime(sets):
    dataset = shapetex.dataset(SMALL)
    assert np.array_equal(dataset.test.images, sets["redundant"].images)
    assert dataset.class_names == SHAPES
    assert dataset.train.images.shape == (300, 32, 32, 3)
    assert np.array_equal(dataset.train.labels, dataset.train.factors["shape"])


@pytest.mark.parametrize(("regime", "other"), [("shape", "texture"), ("texture", "shape")])
def test_single_cue_regimes_leave_the_other_cue_exactly_independent_of_the_label(regime, other):
    config = ShapeTex(regime=regime, n_train=1000)
    factors = shapetex.factors(config, "train")
    joint = np.zeros((10, 10))
    np.add.at(joint, (factors[regime], factors[other]), 1)
    assert config.label_cue == regime
    np.testing.assert_array_equal(joint, 10)


def test_classes_are_named_after_the_cue_that_makes_the_label():
    assert ShapeTex(regime="texture", texture_scale="coarse").class_names == COARSE_TEXTURES
    assert ShapeTex(regime="noisy", noisy_cue="shape").class_names == TEXTURES
    assert ShapeTex(regime="noisy").class_names == SHAPES


@pytest.mark.parametrize(("noisy", "right"), [("texture", "shape"), ("shape", "texture")])
def test_noisy_cue_is_correct_with_its_validity_and_otherwise_uniform(noisy, right):
    config = ShapeTex(regime="noisy", noisy_cue=noisy, cue_validity=0.9, n_train=20000)
    factors = shapetex.factors(config, "train")
    assert config.label_cue == right
    agree = factors[noisy] == factors[right]
    assert agree.mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 20000))
    errors = np.bincount((factors[noisy] - factors[right])[~agree] % 10, minlength=10)
    assert errors[0] == 0
    np.testing.assert_allclose(errors[1:] / errors.sum(), 1 / 9, atol=0.03)


def test_colour_follows_the_label_only_with_the_label_rule():
    config = ShapeTex(colour_rule="label", n_train=100, n_test=100)
    train = shapetex.factors(config, "train")
    assert np.array_equal(train["colour"], train["shape"])
    conflict = shapetex.factors(config, "conflict")
    assert np.mean(conflict["colour"] == conflict["shape"]) < 0.4


def test_longer_sets_begin_with_shorter_ones():
    longer, shorter = (shapetex.scene(ShapeTex(n_train=n), "train") for n in (620, 40))
    for field in ("mask", "texture", "hue", "noise"):
        np.testing.assert_array_equal(getattr(longer, field)[:40], getattr(shorter, field))
    limited = shapetex.dataset(SMALL, limit=40)
    np.testing.assert_array_equal(limited.train.images, shapetex.dataset(SMALL).train.images[:40])
    assert len(limited.test) == 40


def test_only_the_seed_changes_the_random_numbers():
    first, again, other = (shapetex.scene(ShapeTex(n_train=50, seed=seed), "train") for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.mask, again.mask)
    np.testing.assert_array_equal(first.texture, again.texture)
    assert not np.array_equal(first.factors["shape"], other.factors["shape"])
    assert not np.array_equal(first.noise, other.noise)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"texture_amplitude": -0.1}, r"texture_amplitude -0.1: expected a number in \[0, 0.5\]"),
        ({"noise": float("nan")}, r"noise nan: expected a number in \[0, 0.5\]"),
        ({"noise": "a"}, r"noise 'a': expected a number in \[0, 0.5\]"),
        ({"noise": None}, r"noise None: expected a number in \[0, 0.5\]"),
        ({"noise": np.full(2, 0.1)}, r"noise array\(.*: expected a number in \[0, 0.5\]"),
        ({"regime": "both"}, "regime 'both': expected one of redundant, shape, texture, noisy"),
        ({"placement": "left"}, "placement 'left': expected one of global, foreground, background"),
        ({"cue_validity": 1.5}, r"cue_validity 1.5: expected a number in \[0, 1\]"),
        ({"cue_validity": "x"}, r"cue_validity 'x': expected a number in \[0, 1\]"),
        ({"n_train": 0}, "n_train 0: expected a whole number of at least 1"),
        ({"n_train": 2.5}, "n_train 2.5: expected a whole number of at least 1"),
        ({"n_train": float("nan")}, "n_train nan: expected a whole number of at least 1"),
        ({"n_train": "3"}, "n_train '3': expected a whole number of at least 1"),
        ({"n_test": True}, "n_test True: expected a whole number of at least 1"),
        ({"seed": -1}, "seed -1: expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed 1.5: expected a whole number of at least 0"),
        ({"seed": "0"}, "seed '0': expected a whole number of at least 0"),
        ({"seed": 2**70}, "seed 1180591620717411303424: expected a whole number of at most 4294967295"),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_invalid_settings_are_explained(wrong, says):
    with pytest.raises(InputError, match=f"^Invalid ShapeTex {says}"):
        ShapeTex(**wrong)


@pytest.mark.usefixtures("as_a_user")
def test_numbers_of_numpy_are_settings_and_a_seed_is_the_key_that_it_makes():
    config = ShapeTex(n_train=np.int64(20), n_test=np.int32(20), seed=np.uint8(3), noise=np.float32(0))
    expected = shapetex.dataset(ShapeTex(n_train=20, n_test=20, seed=3, noise=0))
    np.testing.assert_array_equal(shapetex.dataset(config).train.images, expected.train.images)
    factors = {cue: np.arange(3, dtype=np.int32) for cue in ("shape", "texture", "colour")}
    by_seed, by_key = (shapetex.draw(factors, key) for key in (3, jax.random.key(3)))
    np.testing.assert_array_equal(by_seed.noise, by_key.noise)


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({"shape": np.array([0, 10, 11])}, r"The factors 'shape' must lie in 0\.\.9; got values from 0 to 11"),
        ({"texture": np.array([0, 1, -1])}, r"The factors 'texture' must lie in 0\.\.9; got values from -1 to 1"),
        ({"colour": np.zeros(2, int)}, r"The factors 'colour' must be integers of shape \[3\]"),
        (dict.fromkeys(("shape", "texture", "colour"), np.zeros(0, int)), "Invalid number of images 0: expected"),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_factors_that_name_no_shape_texture_or_colour_are_refused(key, factors, says):
    every = {cue: np.zeros(3, np.int32) for cue in ("shape", "texture", "colour")}
    with pytest.raises(InputError, match=f"^{says}"):
        shapetex.draw(every | factors, key)
    with pytest.raises(InputError, match=r"^Invalid key 0.5: expected a JAX random key or an integer seed"):
        shapetex.draw(every, 0.5)


@pytest.mark.usefixtures("as_a_user")
def test_a_placement_that_there_is_not_is_refused(every_pair):
    with pytest.raises(InputError, match=r"^Invalid placement 'left': expected one of global, foreground, background"):
        shapetex.compose(every_pair["fine"], shape_amplitude=0.1, texture_amplitude=0.1, placement="left")
