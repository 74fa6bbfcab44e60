"""Evaluation of PyTorch checkpoints and of finished networks: the numbers of torch and pyautoattack, and of the run."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import nn

from mi_jax import cli, data, models, records
from mi_jax.attacks import PGD, Budget, pgd
from mi_jax.errors import InputError
from mi_jax.measure.leaderboard import LEADERBOARD, entries
from mi_jax.models import ARCHITECTURES
from mi_jax.runs import robustness

WIDTH, SIDE = 1 / 16, 32


class Normalised(nn.Module):
    """VGG-11 of width 1/16, with the normalisation of its images as buffers, as RobustBench stores it."""

    def __init__(self):
        super().__init__()
        layers, c = [], 3
        for base in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if base == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(c, int(base * WIDTH), 3, padding=1), nn.BatchNorm2d(int(base * WIDTH)), nn.ReLU()]
                c = int(base * WIDTH)
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(c, 4)
        self.register_buffer("mu", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("sigma", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1))

    def forward(self, x):
        return self.classifier(self.features((x - self.mu) / self.sigma).flatten(1))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A model in torch, its file, and a data set of 24 images labelled by its own predictions, four of them wrong."""
    torch.manual_seed(0)
    model = Normalised()
    images = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    x = torch.tensor(images.transpose(0, 3, 1, 2) / 255).float()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.train()(x)  # gives batch normalisation statistics that are not those of its start
    model.classifier.bias -= model.eval()(x).mean(0)  # so that all classes are predicted
    labels = model.eval()(x).argmax(1).numpy()
    labels[:4] = (labels[:4] + 1) % 4
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, folder / "m.pt")
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(folder / "d.npz", class_names=np.array(list("abcd")), **arrays)
    return model, x, labels, folder


def imported(folder):
    state = models.read_torch_checkpoint(folder / "m.pt")
    return models.from_torch(state, arch="vgg11", input_shape=(SIDE, SIDE, 3), width=WIDTH)


def test_logits_and_pgd_iterates_of_a_checkpoint_are_those_of_torch(case):
    model, x, labels, folder = case
    network, variables = imported(folder)
    assert network.mean == pytest.approx((0.4, 0.5, 0.6))
    images = x.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(network.logits(variables, images), model(x), atol=2e-5)
    config = PGD(eps=0.02, steps=3, step_size=0.01, random_start=False)
    ours = pgd(network.logits, variables, images, labels, config=config).images
    theirs = x.clone()
    for _ in range(3):
        theirs.requires_grad_()
        loss = nn.functional.cross_entropy(model(theirs), torch.tensor(labels), reduction="sum")
        (slope,) = torch.autograd.grad(loss, theirs)
        theirs = (x + (theirs.detach() + 0.01 * slope.sign() - x).clamp(-0.02, 0.02)).clamp(0, 1)
    # Rounding flips the sign of a gradient that is nearly zero.
    assert np.mean(np.abs(np.asarray(ours) - theirs.numpy().transpose(0, 2, 3, 1)) < 1e-5) > 0.99


def test_the_command_prints_the_accuracies_of_pyautoattack(case, capsys, monkeypatch, tmp_path):
    model, x, labels, folder = case
    monkeypatch.setenv("COLUMNS", "200")
    arguments = [
        "evaluate", f"--torch-checkpoint={folder / 'm.pt'}", "--arch=vgg11", f"--width={WIDTH}", "--eps=0.001",
        f"--dataset=npz:{folder / 'd.npz'}", "--version=apgd-ce", "--budget.apgd-steps=10", "--mesh=none",
        f"--state={tmp_path / 'state.npz'}",
    ]  # fmt: skip
    cli.main(arguments)
    shown = capsys.readouterr().out
    peer = APGDAttack(model, n_iter=10, eps=0.001, norm="Linf", device="cpu")
    broken = model(peer.perturb(x, torch.tensor(labels))).argmax(1).numpy() != labels
    (row,) = [line for line in shown.splitlines() if line.startswith("│ m.pt")]
    clean, robust = (float(cell.strip().split("%")[0]) / 100 for cell in row.split("│")[2:4])
    assert clean == pytest.approx(20 / 24, abs=1e-4)
    assert robust == pytest.approx(1 - broken.mean(), abs=1.01 / 24)
    assert 0 < robust < clean
    # The second call finds the finished evaluation, and has nothing to attack.
    monkeypatch.setattr(sys.modules["mi_jax.attacks.autoattack"], "attack_rows", None)
    cli.main(arguments)
    assert capsys.readouterr().out.splitlines()[-2:] == shown.splitlines()[-2:]


def test_finished_networks_of_a_run_have_the_clean_accuracy_of_its_records(finished_run):
    dataset = data.load("digits", limit=300)
    protocol = robustness.Protocol.of("linf", 0.5, version="apgd-ce", budget=Budget(apgd_steps=4), samples=60)
    table = records.load(finished_run)
    for candidate in robustness.finished_networks(finished_run, trainings=("at",), seeds=(1,)):
        result = robustness.evaluate(candidate, dataset, protocol)
        rows = table[(table.training == "at") & (table.seed == 1) & (table.quantity == "accuracy")]
        clean = rows[(rows.inputs == "clean") & (rows.checkpoint == "last") & (rows.n == 60)].value
        assert result.clean_accuracy == pytest.approx(clean.iloc[0])
        assert result.robust_accuracy < result.clean_accuracy
    assert candidate.name == "AT seed 1"
    fewer = dataclasses.replace(dataset, class_names=dataset.class_names[:5])
    with pytest.raises(InputError, match=r"takes images of 8x8x1 and has 10 classes; digits has .* 5 classes"):
        robustness.evaluate(candidate, fewer, protocol)


def test_a_wide_resnet_of_robustbench_loads_without_its_unused_block():
    network = models.create("wrn-34-10", num_classes=3, input_shape=(8, 8, 3), width=1 / 16)
    shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
    assert sum(name.startswith("stage2_block") for name in shapes) == 5
    kernels = {"conv1.weight": shapes["stem"]["kernel"].shape}
    for stage in (1, 2, 3):
        for block in range(1, 6):
            ours, theirs = shapes[f"stage{stage}_block{block}"], f"block{stage}.layer.{block - 1}"
            for n in (1, 2):
                kernels[f"{theirs}.conv{n}.weight"] = ours[f"conv{n}"]["kernel"].shape
                kernels[f"{theirs}.bn{n}"] = ours[f"norm{n}"]["scale"].shape
            if "shortcut" in ours:
                kernels[f"{theirs}.convShortcut.weight"] = ours["shortcut"]["kernel"].shape
    kernels["bn1"] = shapes["norm"]["scale"].shape
    state = {"fc.weight": np.ones((3, kernels["bn1"][0])), "fc.bias": np.ones(3), "sub_block1.layer.0.bn1.weight": 0}
    for name, shape in kernels.items():
        if name.endswith("weight"):
            state[name] = np.zeros(np.array(shape)[[3, 2, 0, 1]])
        else:
            state |= {f"{name}.{leaf}": np.ones(shape) for leaf in ("weight", "bias", "running_mean", "running_var")}
    wrapped = {f"1.{name}": value for name, value in state.items()} | {"0.mean": np.full(3, 0.5), "0.std": np.ones(3)}
    network, variables = models.from_torch(wrapped, arch="wrn-34-10", input_shape=(8, 8, 3), width=1 / 16)
    assert network.mean == (0.5, 0.5, 0.5)
    assert variables["params"]["head"]["bias"].shape == (3,)


def test_the_leaderboard_names_architectures_that_can_be_imported():
    assert all(entry.arch in ARCHITECTURES for entry in LEADERBOARD)
    assert all(0 <= entry.autoattack <= entry.clean <= 1 for entry in LEADERBOARD)
    assert entries("wrn-28-10", "cifar10:3.0.2", "linf", 8 / 255)[0].model == "Wu2020Adversarial_extra"
    assert entries("wrn-28-10", "cifar100", "linf", 8 / 255) == entries("wrn-28-10", "cifar10", "linf", 0.1) == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either a run directory or --torch-checkpoint"),
        (["--torch-checkpoint=no.pt", "--dataset=digits"], "--torch-checkpoint needs --arch"),
        (["--torch-checkpoint=no.pt", "--arch=vgg11", "--dataset=digits"], "no.pt does not exist"),
        (
            [f"--torch-checkpoint={__file__}", "--arch=vgg11", "--dataset=digits"],
            "is not a file written by torch.save that holds only tensors (Weights only load failed).",
        ),
        (
            ["run", "--arch=vgg11", "--width=2"],
            "--arch, --width cannot be used without --torch-checkpoint; leave it out.",
        ),
        (["--torch-checkpoint=no.pt", "--seed=0"], "--seed cannot be used without a run; leave it out."),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["evaluate", *arguments])
    assert left.value.code == 2
    assert words in capsys.readouterr().err
