"""What `pip install` gives: a small package that imports quickly, needs no TFDS for ShapeTex, and runs."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import mi_jax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def in_new_process(code: str) -> str:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_importing_the_package_and_listing_the_commands_imports_nothing_heavy():
    code = "import sys, mi_jax.cli; mi_jax.cli.main(['--help']); print({m.partition('.')[0] for m in sys.modules})"
    loaded = in_new_process(code).splitlines()[-1]
    for name in ("jax", "numpy", "flax", "pandas", "matplotlib", "orbax", "sklearn", "scipy", "rich", "tyro"):
        assert f"'{name}'" not in loaded, name


def test_the_help_of_a_run_does_not_wait_for_figures_tables_or_checkpoints():
    code = (
        "import sys, contextlib, io, mi_jax.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): "
        "mi_jax.cli.main(['run', '--help'])\n"
        "print({m.partition('.')[0] for m in sys.modules})"
    )
    loaded = in_new_process(code).splitlines()[-1]
    for name in ("pandas", "matplotlib", "orbax", "sklearn", "tensorflow_datasets"):
        assert f"'{name}'" not in loaded, name


def test_tfds_is_neither_needed_nor_imported_for_the_embedded_sets_and_its_absence_is_one_sentence(tmp_path):
    code = f"""
import sys
sys.modules |= dict.fromkeys(("tensorflow_datasets", "array_record", "importlib_resources"))
import mi_jax as mj
print(len(mj.data.load("shapetex", limit=20).train), len(mj.data.load("digits", limit=20).train))
try:
    mj.data.load("cifar10", data_dir={str(tmp_path)!r})
except mj.errors.InputError as error:
    print(error)
"""
    sizes, sentence = in_new_process(code).splitlines()
    assert sizes == "20 20"
    assert "pip install tensorflow-datasets array-record" in sentence


def test_the_version_is_that_of_the_package():
    assert PROJECT["version"] == mi_jax.__version__
    assert f"version: {mi_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {mi_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_only_readers_of_tfds_sets_depend_on_where_there_are_wheels():
    conditional = {need.split(">=")[0] for need in PROJECT["dependencies"] if ";" in need}
    assert conditional == {"tensorflow-datasets", "array-record", "importlib-resources"}


def test_lock_files_name_no_registry_and_a_laptop_reads_of_no_accelerator():
    locks = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.lock")}
    assert set(locks) == {"run", "dev", "bench", "notebooks", "cuda", "tpu"}
    for name, text in locks.items():
        assert "://" not in text, name
        assert "--index-url" not in text, name
        assert "--hash=sha256:" in text, name
    for name in ("run", "dev"):
        for other in ("nvidia-", "libtpu", "jupyterlab", "torch"):
            assert f"\n{other}" not in locks[name], (name, other)


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(tmp_path):
    """Needs the package index, `build` and `twine`, and minutes."""

    def do(*command: str | Path, **options) -> str:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    tools, empty = tmp_path / "tools" / "bin", tmp_path / "empty" / "bin"
    for place, packages in ((tools, ["build", "twine"]), (empty, [])):
        do(sys.executable, "-m", "venv", place.parent)
        if packages:
            do(place / "pip", "install", "-q", *packages)
    do(tools / "python", "-m", "build", "-o", tmp_path / "dist", ROOT)
    built = sorted((tmp_path / "dist").iterdir())
    assert "PASSED" in do(tools / "twine", "check", "--strict", *built)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "mi_jax/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} == {"mi_jax", f"mi_jax-{mi_jax.__version__}.dist-info"}

    do(empty / "pip", "install", "-q", wheel)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = [empty / "mi-jax", "run", "--arch=vgg", "--epochs=1", "--seeds=1", "--limit=200"]
    out = do(*run, cwd=tmp_path, env={**environment, "JAX_PLATFORMS": "cpu"})
    assert "Report: runs/shapetex-vgg/report.html" in out
    assert (tmp_path / "runs" / "shapetex-vgg" / "report.html").stat().st_size > 100_000
