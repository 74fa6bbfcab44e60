"""FMN and DDN against foolbox 3.3.4 on shared weights, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import DDN, FMN, ddn, fmn
from mi_jax.attacks.projections import onto_l1_ball
from mi_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
COUNT, STEPS = 30, 15
REACH = {"linf": 1.0, "l2": 13.0, "l1": 192.0}


@pytest.fixture
def double(robust):
    """Images, labels and variables in float64, and foolbox's model with its batch."""
    import foolbox

    x, y = robust.torch_batch(COUNT)
    model = foolbox.PyTorchModel(robust.torch_model.double(), bounds=(0, 1), device="cpu")
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), robust.variables)
        images, labels = jnp.asarray(robust.images[:COUNT], jnp.float64), jnp.asarray(robust.labels[:COUNT])
        yield images, labels, variables, model, x.double(), y
    robust.torch_model.float()


def peer(norm):
    """FMN of foolbox, in L2 with the projection that it lacks and in L1 with that into the box too."""
    import eagerpy
    from foolbox.attacks import L1FMNAttack, L2FMNAttack, LInfFMNAttack

    class Projected2(L2FMNAttack):
        def project(self, x, x0, epsilon):
            size = (x - x0).raw.flatten(1).norm(dim=1).clamp(min=1e-12)
            return x0 + (x - x0) * eagerpy.astensor((epsilon.raw / size).clamp(max=1)[:, None, None, None])

    class Projected1(L1FMNAttack):
        def project(self, x, x0, epsilon):
            delta, clean = ((t.raw.flatten(1).numpy()) for t in (x - x0, x0))
            inside = np.array(onto_l1_ball(jnp.asarray(delta), jnp.asarray(clean), jnp.asarray(epsilon.raw.numpy())))
            return x0 + eagerpy.astensor(x.raw.new_tensor(inside).reshape(x.shape))

    return {"linf": LInfFMNAttack, "l2": Projected2, "l1": Projected1}[norm](steps=STEPS)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nearest_images_of_fmn_equal_those_of_foolbox_with_the_same_projections(cnn, double, norm):
    images, labels, variables, model, x, y = double
    theirs = peer(norm).run(model, x, y).numpy().transpose(0, 2, 3, 1)
    config = FMN(norm, REACH[norm], steps=STEPS, grow_until_found=False)
    ours = fmn(cnn, variables, images, labels, config=config)
    assert np.mean(np.abs(ours.images - theirs).max((1, 2, 3)) < 1e-8) > 0.9
    assert ours.success.mean() > 0.3


def test_nearest_images_of_ddn_equal_those_of_foolbox(cnn, double):
    from foolbox.attacks import DDNAttack

    images, labels, variables, model, x, y = double
    theirs = DDNAttack(steps=STEPS).run(model, x, y).numpy().transpose(0, 2, 3, 1)
    ours = ddn(cnn, variables, images, labels, config=DDN(eps=REACH["l2"], steps=STEPS))
    # foolbox rounds the factors of the radius to single precision.
    assert np.abs(ours.images - theirs).max() < 1e-5
    assert ours.success.all()


def test_found_images_lie_within_eps_and_others_are_clean(linear, softmax):
    images, labels = softmax.images[:30], softmax.labels[:30]
    for config in (FMN("l1", 1.0, steps=20), DDN(eps=0.3, steps=40)):
        result = (ddn if isinstance(config, DDN) else fmn)(linear, softmax.variables, images, labels, config=config)
        norms = np.asarray(result.perturbation_norm)
        assert norms.max() <= config.eps
        assert np.all(norms[~np.asarray(result.success)] == 0)
        assert 0.1 < result.success.mean() < 0.9


def test_growth_until_found_crosses_boundaries_that_the_published_rule_only_approaches(linear, softmax):
    x, y = softmax.images[:30], softmax.labels[:30]
    found = {
        grow: fmn(linear, softmax.variables, x, y, config=FMN("l2", 13.0, steps=30, grow_until_found=grow)).success
        for grow in (False, True)
    }
    assert found[True].all()
    assert found[False].mean() < 0.9


@pytest.mark.parametrize(
    ("expected", "config", "options"),
    [
        ("Invalid gamma 1.0: expected a number between 0 and 1", FMN, {"gamma": 1.0}),
        ("Invalid max_step_size 0.0: expected a positive number", DDN, {"max_step_size": 0.0}),
        ("Invalid init_radius -1.0: expected a positive number", DDN, {"init_radius": -1.0}),
        ("DDN does not support the norm 'l1', only l2", DDN, {"norm": "l1"}),
        ("Invalid steps 0", FMN, {"steps": 0}),
    ],
)
def test_bad_settings_raise_a_clear_error(expected, config, options):
    with pytest.raises(InputError, match=expected):
        config(**options)
