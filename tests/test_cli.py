"""Command lines: documented flags reach the configuration; a mistake prints one line and exits with status 2."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

import mi_jax
from mi_jax import cli, data, parallel, report, training
from mi_jax.cli import dispatch, duration, flags, validate
from mi_jax.cli.dispatch import clean_exit
from mi_jax.cli.run import RunCommand, parse
from mi_jax.errors import InputError
from mi_jax.runs import json_codec
from mi_jax.runs.config import RunConfig

ROOT = Path(__file__).parents[1]


def test_no_flags_but_the_architecture_is_the_quick_shapetex_run():
    command = parse(["--arch=vgg"])
    assert (command.config.arch, command.config.dataset, command.config.preset) == ("vgg", "shapetex", "quick")
    assert command.config.trainings == ("nt", "at")
    assert command.config.seeds >= 2
    assert command.directory == Path("runs/shapetex-vgg")


def test_every_documented_flag_reaches_the_configuration():
    flags = """
        --arch lenet --dataset mnist --data-dir /d --preset paper --training at --seeds 4 --epochs 7 --width 0.5
        --batch-size 32 --run-dir /r --overwrite --attack.norm l2 --attack.eps 0.5 --attack.steps 9
        --attack.step-size 0.1 --probe.samples 77 --probe.noise fixed,layer --dtype bfloat16 --mesh none
    """
    c = parse(flags.split())
    config = c.config
    assert (config.arch, config.dataset, config.preset, config.trainings) == ("lenet", "mnist", "paper", ("at",))
    assert (config.seeds, config.epochs, config.width, config.batch_size) == (4, 7, 0.5, 32)
    assert (config.attack.norm, config.attack.eps, config.attack.steps, config.attack.step_size) == ("l2", 0.5, 9, 0.1)
    assert (config.information.samples, config.information.noise) == (77, ("fixed", "layer"))
    assert (config.dtype, config.mesh) == ("bfloat16", "none")
    assert (c.data_dir, c.run_dir, c.overwrite) == ("/d", Path("/r"), True)


def test_the_paper_preset_is_the_set_up_of_the_study():
    mnist = parse(["--preset=paper", "--dataset=mnist", "--arch=lenet"]).config
    assert (mnist.attack.eps, mnist.attack.step_size, mnist.attack.steps) == (45 / 255, 8 / 255, 7)
    cifar = parse(["--preset=paper", "--dataset=cifar10"]).config
    assert (cifar.attack.eps, cifar.attack.step_size) == (8 / 255, 2 / 255)
    assert (cifar.epochs, cifar.batch_size, cifar.information.samples, cifar.limit, cifar.width) == (
        200,
        128,
        5000,
        None,
        1.0,
    )
    rate = cifar.optimizer
    assert (rate.name, rate.learning_rate, rate.momentum, rate.schedule) == ("sgd", 0.1, 0.9, "multistep")


def test_the_steps_of_both_attacks_follow_a_radius_that_is_given():
    l2 = parse(["--attack.norm=l2", "--attack.eps=0.5"]).config
    assert l2.attack.step_size == pytest.approx(0.25), "half the radius, as in the preset"
    assert (l2.final_attack.norm, l2.final_attack.steps, l2.final_attack.step_size) == ("l2", 20, 0.125)
    assert parse([]).config.final_attack.step_size == pytest.approx(2 / 255)
    usual = parse(["--attack.norm", "l2"]).config.attack
    assert (usual.eps, usual.step_size) == (0.5, 0.25), "the usual radius of that norm, not the one of Linf"
    assert parse(["--attack.norm=linf"]).config.attack.eps == pytest.approx(8 / 255)
    one_step = parse(["--attack.eps=4/255", "--attack.steps=1"]).config
    assert one_step.attack.step_size == pytest.approx(4 / 255), "one step of half the radius would not reach it"
    assert parse(["--attack.eps=0.5", "--attack.step_size=0.1"]).config.attack.step_size == 0.1
    few = parse(["--evaluation.steps=5", "--attack.eps=0.1"]).config
    assert few.final_attack.step_size == pytest.approx(0.05)


def test_a_version_behind_the_name_of_the_data_set_changes_no_default():
    for preset in ("quick", "paper"):
        plain, versioned = (
            parse([f"--preset={preset}", f"--dataset={name}"]).config for name in ("mnist", "mnist:3.0.1")
        )
        assert dataclasses.replace(versioned, dataset="mnist") == plain
        assert versioned.attack.eps == 45 / 255


def test_images_are_held_out_where_the_best_epoch_is_to_be_told_from_the_last():
    assert parse(["--preset=paper"]).config.held_out == 0.02
    assert parse(["--training=nt,fast"]).config.held_out == 0.02
    assert parse(["--training=nt,at"]).config.held_out == 0.0
    assert parse(["--training=fast", "--held-out=0"]).config.held_out == 0.0


@pytest.mark.parametrize(
    "flags", [["--attack.eps=16/255"], ["--attack.eps", "16/255"], ["--attack.eps", str(16 / 255)]]
)
def test_pixel_units_may_be_fractions(flags):
    assert parse([*flags, "--run-dir", "1/2"]).config.attack.eps == 16 / 255
    assert parse([*flags, "--run-dir", "1/2"]).run_dir == Path("1/2")


def status_of_command(*arguments: str, monkeypatch) -> object:
    """The status that `mi-jax` leaves with, run in this process."""
    monkeypatch.setattr(parallel, "keep_compiled_programs", lambda: None)
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    return left.value.code


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset=slow"], "choose quick or paper"),
        (["--seeds=0"], "seeds 0: expected a whole number of at least 1"),
        (["--seeds=99999999999"], "seeds 99999999999: expected a whole number of at most 10000"),
        (["--epochs=99999999999999999999"], "expected a whole number of at most 1000000"),
        (["--batch-size=99999999999"], "--batch-size 99999999999: expected a whole number of at most 2147483647"),
        (["--held-out=nan"], "nan: expected a number in [0, 1), such as 0.02, or 0 for none"),
        (["--held-out=inf"], "inf: expected a number in [0, 1), such as 0.02, or 0 for none"),
        (["--training=nt,magic"], "expected some of fast, mart, noise, nt, at, trades"),
        (["--training=nt,nt"], "expected each name once"),
        (["--attack.steps=0"], "attack.steps 0: expected a whole number of at least 1"),
        (["--attack.eps=-0.1"], "eps"),
        (["--attack.eps=2"], "eps"),
        (["--attack.eps=0", "--training=fast"], "attack.eps 0.0: expected a positive number"),
        (
            ["--training=fast", "--attack.norm=l2", "--attack.eps=0.5", "--fast-step=4"],
            "--fast-step 4.0: expected a number in [0, 3]",
        ),
        (["--probe.samples=1"], "samples 1: expected a whole number of at least 2"),
        (["--probe.noise=white"], "expected some of fixed, layer, trace, median, scale_free"),
        (["--optimizer.learning-rate=-1"], "learning_rate -1.0: expected a positive number"),
        (["--evaluation.steps=0"], "steps 0: expected a whole number of at least 1"),
        (["--evaluation.step-size=0"], "step_size 0.0: expected a positive number"),
        (["--evaluation.restarts=0"], "restarts 0: expected a whole number of at least 1"),
        (["--evaluation.checks=10", "--attack.eps=0"], "eps 0.0: expected a positive number"),
        (["--evaluation.checks=1"], "checks 1: expected a whole number of at least 2"),
        (["--attack.eps=0.5", "--attack.norm=l2", "--evaluation.step-size=0.02"], "20 steps go 0.4 and never"),
    ],
)
def test_a_value_out_of_range_is_named_when_the_command_is_read(flags, words, capsys):
    with pytest.raises((InputError, SystemExit)) as caught, clean_exit():
        parse(flags)
    assert isinstance(caught.value, SystemExit)
    assert caught.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--arch=vgg99"], "vgg11"),
        (["--dataset=imagenot"], "imagenot"),
        (["--width=0.0001"], "width"),
        (["--mesh=data=64"], "mesh asks for 64 devices"),
        (["--epohcs=3"], "--epochs"),
        (["--dtype=float16"], "bfloat16"),
        (["--run-dir=/dev/null/x"], "part of the path is a file"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_status_2(flags, words, tmp_path, monkeypatch, capsys):
    assert status_of_command("run", f"--run-dir={tmp_path / 'run'}", *flags, monkeypatch=monkeypatch) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def status_of(script: str, *arguments: str, monkeypatch) -> object:
    """The status that a script of `experiments/` leaves with, run in this process."""
    path = str(ROOT / "experiments" / script)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.setattr(parallel, "keep_compiled_programs", lambda: None)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(path, run_name="__main__")
    return left.value.code


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("study.py", ["geometry", "{file}"], "{file} is not a run directory"),
        ("study.py", ["geometry", "{long}"], "cannot be read (File name too long)"),
        ("run.py", ["--arch=mlp", "--dataset=digits", "--run-dir={long}"], "the name is too long"),
        ("report.py", ["{long}"], "the name is too long"),
        ("report.py", ["{file}"], "is not a directory"),
    ],
)
def test_a_path_that_is_no_run_directory_is_one_sentence(script, arguments, words, tmp_path, monkeypatch, capsys):
    places = {"file": tmp_path / "file", "long": tmp_path / ("x" * 300)}
    places["file"].touch()
    given = [argument.format(**places) for argument in arguments]
    assert status_of(script, *given, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert words.format(**places) in told


def test_a_full_disk_under_a_report_is_one_sentence(tmp_path, monkeypatch, capsys):
    def fail(run_dir, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run_dir / "report.html.part"))

    monkeypatch.setattr(report, "build", fail)
    assert status_of("report.py", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith(
        f"error: Cannot read or write {tmp_path}/report.html.part: the disk is full"
    )


def test_ctrl_c_while_data_are_prepared_is_its_status(monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "prepare", stop)
    assert status_of("prepare_data.py", "--dataset=mnist", monkeypatch=monkeypatch) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_signal_stops_the_validation_of_estimators_with_its_status(tmp_path, monkeypatch, capsys):
    def run(config, *, folder, stop_asked, command, **options):
        assert command == f"mi-jax validate --run-dir {folder}"
        os.kill(os.getpid(), signal.SIGTERM)
        if stop_asked():
            raise training.Interrupted

    monkeypatch.setattr(validate, "run", run)
    with pytest.raises(SystemExit) as left:
        cli.main(["validate", "--run-dir", str(tmp_path)])
    assert left.value.code == 75
    assert "The same command resumes." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("columns", ["160", "50"])
def test_the_validation_of_estimators_prints_every_number_whole(tmp_path, monkeypatch, capsys, columns):
    row = {"target": "label", "estimator": "binning_miller_madow", "attempts": 180, "bias": -0.328, "rmse": 0.398}
    found = pd.DataFrame([row | {f"share_{k}": 0.1 * k for k in range(6)}])
    monkeypatch.setattr(validate, "run", lambda *_, **options: found)
    monkeypatch.setenv("COLUMNS", columns)
    cli.main(["validate", "--run-dir", str(tmp_path)])
    words = capsys.readouterr().out.replace("│", " ").split()
    assert {"binning_miller_madow", "-0.328", "0.398", "0.500"} <= set(words)


@pytest.fixture(scope="module")
def help_text() -> str:
    """What `mi-jax run --help` prints, one line of it a paragraph."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
        patch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as left:
            parse(["--help"])
    assert left.value.code == 0
    return shown.getvalue()


def test_help_explains_every_option(help_text):
    for flag in ("--attack.step-size", "--information.noise", "--population", "--evaluation.restarts", "--overwrite"):
        assert flag in help_text
    # An option without a text shows nothing but its default.
    described = help_text.split("--attack.eps")[1].split("--attack.steps")[0]
    assert "pixel" in described


def test_help_lists_what_can_be_chosen(help_text):
    for name in ("vgg11", "wrn-28-10", "trades", "fourier", "shape_texture"):
        assert name in help_text.split("options")[0], name


def test_help_shows_radii_in_levels_of_eight_bits(help_text):
    assert "(default: 8/255)" in help_text.split("--attack.eps")[1].split("--attack.steps")[0]
    assert "0.0313" not in help_text


def test_names_are_understood_in_any_case():
    config = parse(["--arch=LeNet", "--training=NT,Trades", "--attack.norm=Linf", "--dtype=BFloat16"]).config
    assert (config.arch, config.attack.norm, config.dtype) == ("lenet", "linf", "bfloat16")
    assert config.trainings == ("nt", "trades")
    assert "standard" in parse(["--evaluation.autoattack=Standard"]).config.evaluation.autoattack


def test_the_flags_of_information_have_two_spellings():
    assert parse(["--information.samples=77"]) == parse(["--probe.samples", "77"])


def test_every_option_of_an_objective_has_a_flag_also_one_that_the_user_defines(capsys):
    @training.register("smoothed")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Smoothed(training.OBJECTIVES["nt"]):
        smoothing: float = 0.1

    try:
        config = parse(["--training", "nt,smoothed", "--objective.smoothed.smoothing=1/4"]).config
        assert config.objective_config.objective("smoothed") == Smoothed(smoothing=0.25)
        assert json_codec.from_dict(RunConfig, json.loads(json.dumps(json_codec.to_dict(config)))) == config
        own_flag = parse(["--objective.trades.trades-beta", "3"]).config
        assert own_flag == parse(["--trades-beta", "3"]).config
        assert own_flag.objective_config.objective("trades").trades_beta == 3
        for flag, words in (
            ("smoothed.sharpness", "The training smoothed has no option 'sharpness'; it has smoothing."),
            ("unheard.smoothing", "There is no training 'unheard'"),
            ("smoothed.smoothing", "--objective.smoothed.smoothing is 'much'; expected a value of type float."),
        ):
            with pytest.raises(InputError, match=words):
                parse([f"--objective.{flag}", "much"])
    finally:
        training.OBJECTIVES.unregister("smoothed")


def test_a_list_is_one_argument_with_commas():
    @dataclasses.dataclass(frozen=True)
    class Command:
        names: tuple[str, ...] = ("a",)
        radii: tuple[float, ...] = (8 / 255,)
        kinds: tuple[Literal["One", "Two"], ...] = ()

    given = ["--names=b, c", "--radii", "1/255,0.5", "--kinds=two,ONE"]
    assert flags.parse(Command, given, program="x") == Command(("b", "c"), (1 / 255, 0.5), ("Two", "One"))
    assert flags.parse(Command, ["--names="], program="x").names == ()


def test_a_message_of_the_library_names_the_flag():
    assert flags.in_flags("Invalid batch_size 0 in /tmp/run_dir/a.", RunCommand) == (
        "Invalid --batch-size 0 in /tmp/run_dir/a."
    )
    told = flags.in_flags("Another run is there; choose another run_dir or pass overwrite=True.", RunCommand)
    assert told == "Another run is there; choose another --run-dir or pass --overwrite."


def test_commands_are_listed_and_a_misspelt_one_is_recognised(monkeypatch, capsys):
    cli.main(["--help"])
    listed = capsys.readouterr().out
    for name in ("run", "study", "report", "sweep", "benchmark", "prepare", "validate"):
        assert f"\n  {name} " in listed
    assert status_of_command("reprot", monkeypatch=monkeypatch) == 2
    assert "Did you mean report?" in capsys.readouterr().err


def test_a_module_of_the_user_is_imported_before_the_flags_are_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "neighbour.py").write_text("NAME = 'imported'\n")
    (tmp_path / "mine.py").write_text("import neighbour\nprint(neighbour.NAME)\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    cli.main([f"--import={tmp_path / 'mine.py'}", "--version"])
    assert capsys.readouterr().out == f"imported\nmi_jax {mi_jax.__version__}\n"
    assert status_of_command("run", "--import", str(tmp_path / "none.py"), monkeypatch=monkeypatch) == 2
    assert "is not a file; expected a Python file" in capsys.readouterr().err
    assert status_of_command("run", "--import", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == "error: --import needs a Python file, such as my_model.py.\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "own_a.py",
            "x = 1\n1 / 0\n",
            "own_a.py failed in line 2 (ZeroDivisionError: division by zero); fix the file.",
        ),
        ("own_b.py", "def x(:\n", "own_b.py failed (SyntaxError: invalid syntax (own_b.py, line 1)); fix the file."),
        ("jax.py", "", "which would hide the package jax; rename the file."),
        ("random.py", "", "which would hide the package random; rename the file."),
        ("pylab.py", "", "which would hide the package pylab; rename the file."),  # Matplotlib's module of one file
    ],
)
def test_a_module_of_the_user_that_cannot_be_imported_is_one_sentence(
    name, content, words, tmp_path, monkeypatch, capsys
):
    (tmp_path / name).write_text(content)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert status_of_command("--import", str(tmp_path / name), "--version", monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert words in told


def test_every_door_fails_alike(monkeypatch, capsys):
    for script in ("run.py", "study.py", "report.py", "sweep.py", "prepare_data.py", "validate_estimators.py"):
        assert status_of(script, "--nonsense", monkeypatch=monkeypatch) == 2, script
        assert f"experiments/{script} --help" in " ".join(capsys.readouterr().err.split()), script


def test_the_first_line_says_what_a_run_does_and_about_how_long(monkeypatch):
    monkeypatch.setattr(duration, "_flops_per_second", lambda: 1e11)
    command = parse(["--arch=vgg"])
    # Forward passes: 12 (3 of nt, 9 of at with PGD-3) x 3,000 images x 6 epochs; for both PGD-3 and estimators on 1,000
    # images in 4 epochs, PGD-20 on 250, label-free PGD-3 on 1,000, a study of 500; x 3 seeds.
    forwards = 12 * 3000 * 6 + 2 * (4 * 1000 * 19 + 250 * 43 + 1000 * 26 + 500 * 60)
    # A number of an activation (8 x 32 x 32 + ...) takes as long as 1,000 operations of a matrix product.
    forward = 5.162e6 + 1000 * 18_954
    assert duration.seconds(command.config) == pytest.approx(90 + (3 * forwards * forward + 3e12) / 1e11, rel=1e-3)
    line = duration.expected(command.config, command.directory)
    assert line.startswith(
        "vgg on shapetex, nt and at: 3 seeds x 6 epochs, information at 4 of them, then PGD-20, shape_bias, report, "
        "writing runs/shapetex-vgg; about 8 min 00 s"
    )
    single = parse(["--seeds=1", "--epochs=1"])
    assert ": 1 seed x 1 epoch, " in duration.expected(single.config, single.directory)


def test_a_negative_fraction_is_refused_as_a_number(capsys):
    with pytest.raises(SystemExit) as left:
        parse(["--attack.eps=-8/255"])
    assert left.value.code == 2
    assert "Invalid eps -0.0313725" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "8/0", "eight"])
def test_what_is_not_a_number_is_refused_with_what_is_expected(text, capsys):
    with pytest.raises(SystemExit) as left:
        parse([f"--attack.eps={text}"])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert f"{text!r} is not a number;" in told
    assert "8/255" in told.partition("helptext")[0]


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stderr
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(timeout=120) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_an_output_on_a_full_disk_is_one_sentence_and_status_2(flag):
    code = "from mi_jax import cli; cli.main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, flag], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: Cannot read or write the output: the disk is full: free some space and start the same command again to "
        "resume.\n"
    )


def test_an_error_of_the_file_system_is_one_sentence_wherever_it_comes_from(monkeypatch, capsys):
    assert status_of_command("run", f"--config={'x' * 300}", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.endswith("x: the name is too long: choose another directory.\n")


def test_a_run_can_start_from_the_configuration_of_another(tmp_path):
    earlier = parse(["--preset=paper", "--arch=mlp", "--dataset=digits"]).config
    (tmp_path / "config.json").write_text(json.dumps(json_codec.to_dict(earlier)))
    for given in (tmp_path, tmp_path / "config.json"):
        found = parse([f"--config={given}", "--epochs=3", "--evaluation.samples", "99"]).config
        evaluation = dataclasses.replace(earlier.evaluation, samples=99)
        assert found == dataclasses.replace(earlier, epochs=3, evaluation=evaluation)
    harmless = parse(["--arch=mlp", "--dataset=digits", "--attack.eps=0"]).config
    (tmp_path / "config.json").write_text(json.dumps(json_codec.to_dict(harmless)))
    attack = parse(["--config", str(tmp_path), "--attack.eps=4/255"]).config.attack
    assert attack.step_size == pytest.approx(4 / 255 / attack.steps), "a radius of 0 gives no ratio to keep"
    with pytest.raises(InputError, match="--preset paper and --config both choose the defaults; leave one out"):
        parse(["--config", str(tmp_path), "--preset=paper"])
    assert parse(["--config", str(tmp_path), "--preset=quick"]).config == harmless
    (tmp_path / "config.json").write_text('{"archh": "vgg"}')
    for arguments, words in (
        (["--config", str(tmp_path)], "has the unknown key 'archh'"),
        (["--config", str(tmp_path / "none")], "expected a run directory or its config.json"),
        (["--config"], "--config needs a path"),
    ):
        with pytest.raises(InputError, match=words):
            parse(arguments)


def test_a_home_directory_is_found_also_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse(["--run-dir=~/vgg"]).run_dir == Path("/home/me/vgg")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("JAX_ENABLE_X64", "maybe", "error: The environment variable JAX_ENABLE_X64 is 'maybe', which JAX refuses"),
        ("MPLBACKEND", "nonsense", "error: The run directory nowhere does not exist"),
    ],
)
def test_an_environment_variable_that_a_library_refuses_gives_one_sentence(variable, value, message):
    command = [sys.executable, str(ROOT / "experiments" / "report.py"), "nowhere"]
    done = subprocess.run(command, env={**os.environ, variable: value}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_home_directory_is_found_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "extension_at_home.py").write_text("FOUND = 7\n")
    (tmp_path / "config.json").write_text(json.dumps(json_codec.to_dict(RunConfig(seeds=4))))
    assert parse(["--config=~/config.json"]).config.seeds == 4
    assert dispatch._import_extensions(["--import=~/extension_at_home.py"]) == []
    assert sys.modules.pop("extension_at_home").FOUND == 7
