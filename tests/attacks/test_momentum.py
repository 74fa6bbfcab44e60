"""MI-FGSM against torchattacks 3.5.1 on shared weights, alone and inside AutoAttack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import Momentum, autoattack, run

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
COUNT = 40


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_last_iterate_equals_torchattacks(cnn, normal, decay):
    torchattacks = pytest.importorskip("torchattacks")
    x, y = normal.torch_batch(COUNT)
    theirs = torchattacks.MIFGSM(normal.torch_model, eps=0.1, alpha=0.02, steps=6, decay=decay)(x, y)
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    config = Momentum(eps=0.1, steps=6, step_size=0.02, decay=decay)
    ours = run(cnn, normal.variables, normal.images[:COUNT], normal.labels[:COUNT], config=config)
    # The last iterate is the best for nearly every image; rounding flips a few signs.
    assert np.mean(np.abs(ours.images - theirs).max((1, 2, 3)) <= 1e-5) > 0.85
    logits = normal.torch_model(x.new_tensor(theirs.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(ours.success.mean(), np.mean(logits.argmax(1) != y.numpy()), atol=1 / COUNT + 1e-6)


def test_mi_fgsm_runs_inside_autoattack_by_name(linear, softmax):
    batch = softmax.variables, softmax.images[:40], softmax.labels[:40]
    result = autoattack(linear, *batch, jax.random.key(0), eps=0.08, version=["mi-fgsm", "apgd-ce"])
    alone = run(linear, *batch, config=Momentum(eps=0.08))
    assert [stage.name for stage in result.stages] == ["mi-fgsm", "apgd-ce"]
    assert result.stages[0].robust_accuracy == pytest.approx(1 - float(alone.success.mean()))


def test_mi_fgsm_does_not_depend_on_the_scale_of_the_logits(linear, softmax):
    def curved(scale):
        return lambda variables, x: scale * jnp.tanh(linear(variables, x))

    batch = softmax.variables, softmax.images[:40], softmax.labels[:40]
    config = Momentum(eps=0.1, steps=6, step_size=0.02, loss="cw")
    plain, small = (run(curved(scale), *batch, config=config) for scale in (1.0, 2.0**-50))
    np.testing.assert_array_equal(plain.images, small.images)
