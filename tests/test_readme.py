"""The README is short, its code runs, `.ci/run` uses its command, and the guide names all commands and studies."""

import re
import subprocess
from pathlib import Path

import numpy as np

from mi_jax import studies
from mi_jax.cli.dispatch import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "experiments" / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_code_attacks_a_network_and_bounds_the_information_of_a_layer(capsys):
    (code,) = blocks("python")
    names: dict = {}
    exec(code, names)
    delta = np.asarray(names["result"].images) - names["x"]
    assert np.abs(delta).max() <= 8 / 255 + 1e-6
    wrong = np.argmax(names["network"].apply(names["variables"], names["result"].images)[0], -1) != names["y"]
    np.testing.assert_array_equal(names["result"].success, wrong)
    layers = names["layers"]
    assert list(layers.index) == ["pixels", "logits"]
    assert (layers.i_tx_lower <= layers.i_tx_upper).all()
    assert layers.i_tx_upper.max() <= np.log2(200) + 1e-6
    assert {"clean", "adversarial"} == set(names["rows"].inputs)
    assert f"robust accuracy {1 - wrong.mean():.1%}" in capsys.readouterr().out


def test_two_commands_stand_at_the_top_and_ci_runs_the_second():
    run, tests = blocks("bash")[:2]
    assert run == "pip install -e . && python experiments/run.py --arch=vgg\n"
    extraction = re.search(r"^command=\$\((.*)\)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert extraction
    found = subprocess.run(["bash", "-c", extraction[1]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == tests


def test_every_command_and_study_is_named_and_nothing_else():
    (commands,) = re.findall(r"`mi-jax ((?:\w+ \| )+\w+)`", GUIDE)
    assert set(commands.split(" | ")) == set(COMMANDS)
    assert set(re.findall(r"^\| `(\w+)` \|", GUIDE, flags=re.MULTILINE)) == set(studies.STUDIES)


def test_it_is_at_most_450_words_and_every_link_leads_somewhere():
    assert len(README.split()) <= 450
    for folder, page in ((ROOT, README), (ROOT / "experiments", GUIDE)):
        for target in re.findall(r"\]\(([^)#]+)\)", page):
            assert target.startswith("https://") or (folder / target).exists(), (folder.name, target)
