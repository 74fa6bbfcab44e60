"""Square: proposals and acceptance against pyautoattack 0.2.0 on the same random stream, schedule and bumps.

In double precision: in L2 the norm left over for a window is a difference of nearly equal numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pyautoattack.square import SquareAttack

from mi_jax.attacks import Square, ThreatModel, square, square_proposals
from mi_jax.attacks.attack import Batch
from mi_jax.attacks.losses import cw
from mi_jax.attacks.square import SquareState, accept, window_sides
from mi_jax.errors import InputError

COUNT, QUERIES = 16, 60


class Recorder(SquareAttack):
    """The official attack, which records all random choices."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.integers, self.choices, self.turns, self.tried = [], [], [], []

    def random_int(self, low=0, high=1, shape=(1,)):
        drawn = super().random_int(low, high, shape)
        self.integers.append(int(drawn))
        return drawn

    def random_choice(self, shape):
        drawn = super().random_choice(shape)
        self.choices.append(drawn.numpy())
        return drawn

    def margin_and_loss(self, x, y):
        self.tried.append(x.numpy().transpose(0, 2, 3, 1).copy())
        return super().margin_and_loss(x, y)

    def eta(self, s):
        drawn = super().eta(s)
        # A bump that is not transposed has its positive half on top.
        self.turns.append(bool(drawn[0, -1] < 0))
        return drawn


def replay(recorder, cnn, net, norm, eps):
    """Our starts, proposals and acceptance, with the recorded choices."""
    images, labels = jnp.asarray(net.images[:COUNT], jnp.float64), jnp.asarray(net.labels[:COUNT])
    variables = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), net.variables)
    zeros = jnp.zeros(COUNT, jnp.int32)
    batch = Batch(images, labels, None, zeros)
    sides = window_sides(Square(norm=norm, queries=QUERIES), images.shape)
    schedule = square_proposals.Schedule.of(sides, norm)
    threat = ThreatModel(norm, jnp.float64(eps))
    if norm == "linf":
        first = recorder.choices.pop(0)[:, :, 0].transpose(0, 2, 1)
        start = square_proposals.stripes(
            images, square_proposals.StartDraw(jnp.asarray(first), jnp.zeros((COUNT, 0), bool)), threat
        )
        np.testing.assert_allclose(start, recorder.tried[0], atol=1e-12)
    else:
        # On 8 x 8 pixels the official grid of tiles extends beyond the edge; starts are compared on 10 x 10 below.
        start = jnp.asarray(recorder.tried[0])
        del recorder.choices[: 8 * 8], recorder.turns[: 8 * 8]

    @jax.jit
    def step(state, draw, i):
        candidate = jnp.where(i == 0, start, square_proposals.propose(state.images, images, draw, schedule, i, threat))
        return accept(state, candidate, cnn(variables, candidate), batch)

    corner = jnp.zeros((COUNT, 2), jnp.int32)
    draw = square_proposals.Draw(corner, corner, jnp.ones((COUNT, 3)), jnp.zeros(COUNT, bool))
    state = SquareState(start, jnp.full(COUNT, jnp.inf), jnp.zeros(COUNT, bool))
    state = step(state, draw, 0)
    for i in range(1, QUERIES + 1):
        places = [recorder.integers.pop(0) for _ in range(2 if norm == "linf" else 4)]
        signs = recorder.choices.pop(0)
        signs = np.broadcast_to(signs.reshape(-1, 3), (COUNT, 3))
        draw = square_proposals.Draw(
            jnp.tile(jnp.array(places[:2]), (COUNT, 1)),
            jnp.tile(jnp.array(places[-2:]), (COUNT, 1)),
            jnp.asarray(signs),
            jnp.full(COUNT, norm != "linf" and bool(recorder.turns.pop(0))),
        )
        state = step(state, draw, i)
    return state


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.2), ("l1", 0.4)])
def test_same_random_stream_gives_the_images_of_pyautoattack(cnn, robust, norm, eps, monkeypatch):
    # The official L1 projection computes in single precision.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    # The official code draws signs for the robust images alone, so all must be correct and (below) stay so.
    correct = np.flatnonzero(np.argmax(cnn(robust.variables, robust.images), axis=1) == robust.labels)[:COUNT]
    net = robust._replace(images=robust.images[correct], labels=robust.labels[correct])
    x, y = net.torch_batch(COUNT)
    official = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    peer = Recorder(net.torch_model, norm=official, n_queries=QUERIES, eps=eps, resc_schedule=False, device="cpu")
    peer.init_hyperparam(x)
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    net.torch_model.double()
    try:
        with torch.no_grad():
            theirs = peer.attack_single_run(x.double(), y)[1]
            clean_margin = peer.margin_and_loss(x.double(), y)[0].numpy()
    finally:
        torch.set_default_dtype(torch.float32)
        monkeypatch.undo()
        net.torch_model.float()
    with jax.enable_x64(True):
        state = replay(peer, cnn, net, norm, eps)
        assert not state.found.any()
        np.testing.assert_allclose(state.images, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-6)
        assert np.all(state.margin < clean_margin)


@pytest.mark.parametrize("side", [10, 17])
def test_l2_start_equals_pyautoattack(side):
    x = torch.rand((6, 3, side, side), generator=torch.Generator().manual_seed(0))
    peer = Recorder(
        lambda v: torch.tensor([[1.0, 0.0]]).repeat(len(v), 1), norm="L2", n_queries=1, eps=0.5, device="cpu"
    )
    peer.init_hyperparam(x)
    torch.manual_seed(1)
    peer.attack_single_run(x, torch.zeros(6, dtype=torch.long))
    signs = np.stack([choice[:, :, 0, 0] for choice in peer.choices[:25]], axis=1)
    draw = square_proposals.StartDraw(jnp.asarray(signs), jnp.tile(jnp.asarray(peer.turns[:25]), (6, 1)))
    clean = jnp.asarray(x.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(square_proposals.tiles(clean, draw, ThreatModel("l2", 0.5)), peer.tried[0], atol=1e-6)


def test_schedule_equals_pyautoattack(cnn):
    for norm in ("linf", "l2"):
        for rescale in (False, True):
            peer = SquareAttack(None, norm="Linf", n_queries=9000, eps=0.1, resc_schedule=rescale)
            config = Square(norm=norm, queries=9000, rescale_schedule=rescale)
            ours = window_sides(config, (1, 32, 32, 3))[1:]
            for query in (0, 10, 11, 50, 51, 700, 1999, 4500, 8500):
                side = round(np.sqrt(peer.p_selection(query) * 32 * 32))
                if norm == "l2":
                    side = max(side, 3) + (1 - max(side, 3) % 2)
                assert ours[query] == min(max(side, 1), 32)


@pytest.mark.parametrize("side", [3, 4, 5, 7, 29, 32])
def test_bump_equals_pyautoattack(side):
    peer = SquareAttack(None, norm="L2", eps=0.1, device="cpu")
    theirs = peer.eta(side).numpy()
    ours = square_proposals.bump(side)
    assert min(np.abs(ours - theirs).max(), np.abs(ours.T - theirs).max()) < 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_stay_in_the_ball_and_the_margin_rises(linear, softmax, norm):
    eps = {"linf": 0.15, "l2": 1.0}[norm]
    images, labels = softmax.images[:COUNT], jnp.asarray(softmax.labels[:COUNT])
    config = Square(norm=norm, eps=eps, queries=80)
    result = square(linear, softmax.variables, images, labels, jax.random.key(0), config=config)
    assert float(result.perturbation_norm.max()) <= eps * (1 + 1e-5)
    assert float(result.loss.mean()) > float(cw(linear(softmax.variables, images), labels).mean()) + 1


def test_windows_reach_every_position_and_fit_non_square_images():
    words = jax.random.bits(jax.random.key(0), (4000, 3), jnp.uint32)
    draw = square_proposals.step_draw(words, jnp.int32(3), (4000, 5, 8, 2), "linf")
    assert set(np.asarray(draw.corner[:, 0])) == {0, 1, 2}
    assert set(np.asarray(draw.corner[:, 1])) == {0, 1, 2, 3, 4, 5}
    assert abs(float(draw.signs.mean())) < 0.05
    inside = square_proposals.window(draw.corner, jnp.int32(3), (4000, 5, 8, 2))
    assert np.all(np.asarray(inside.sum((1, 2, 3))) == 9)


def test_bad_settings_raise_a_clear_error(linear_model, batch):
    for expected, options in {"p_init": {"p_init": 0.0}, "queries": {"queries": 0}, "eps 2.0": {"eps": 2.0}}.items():
        with pytest.raises(InputError, match=expected):
            Square(**options)
    logits_fn, variables = linear_model
    with pytest.raises(InputError, match="5 x 5 pixels; got 4 x 3"):
        square(logits_fn, variables, *batch, jax.random.key(0), config=Square(norm="l2", queries=1))
