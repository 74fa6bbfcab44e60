"""Two processes on this machine agree, share work, and leave together."""

import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import parallel, processes, records
from mi_jax.attacks import Budget, autoattack
from mi_jax.batches import map_batches
from mi_jax.errors import InputError


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def raised(work) -> list[str]:
    try:
        work()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


def agree() -> dict:
    """What is the same in all processes although each has its own."""
    index = jax.process_index()

    def fails_in(failing: int, error: Exception) -> None:
        if index == failing:
            raise error

    numbers = np.random.default_rng(index).normal(size=20_000)
    nested = processes.on_first(lambda: processes.on_first(lambda: index) + 1)
    return {
        "value": processes.agree(f"of {index}"),
        "sum": float(processes.agree(numbers).sum()),
        "any": [processes.any_of(index == 1), processes.any_of(False)],
        "nested": nested,
        "bad input": raised(lambda: processes.on_first(lambda: fails_in(0, InputError("Invalid.")))),
        "disk": raised(lambda: processes.on_first(lambda: fails_in(0, OSError(errno.ENOSPC, "full", "file")))),
        "of another": raised(lambda: processes.together(lambda: fails_in(1, InputError("Not here.")))),
        "unknown": raised(lambda: processes.on_first(lambda: fails_in(0, Unpicklable()))),
        "unknown of another": raised(lambda: processes.together(lambda: fails_in(1, Unpicklable()))),
        "of two arguments": raised(lambda: processes.on_first(lambda: fails_in(0, OfTwoArguments(1, 2)))),
        "result": raised(lambda: processes.on_first(lambda: lambda: index)),
    }


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("odd")
        self.lock = lambda: None


class OfTwoArguments(Exception):
    """Can be pickled, but not built again from its text."""

    def __init__(self, first: int, second: int):
        super().__init__(f"{first} and {second}")


def share() -> dict:
    """Work on devices of both processes, beside the same on one device of this one."""
    mesh = parallel.make_mesh("auto")
    assert mesh is not None
    x = np.random.default_rng(0).uniform(0, 1, (21, 5, 5, 3)).astype(np.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(75, 4)), jnp.float32)

    def model(weights, x):
        return (x.reshape(len(x), -1) - 0.5) @ weights

    made = map_batches(lambda x: jax.jit(model)(weights, x), x, batch_size=6, mesh=mesh)
    y = np.asarray(model(weights, x)).argmax(1)
    options = {"eps": 0.02, "version": ["apgd-ce", "square"], "budget": Budget(apgd_steps=3, square_queries=9)}
    state = Path(sys.argv[3]) / "state.npz"
    one, both = (
        autoattack(model, weights, x, y, 0, **options),
        autoattack(model, weights, x, y, 0, mesh=mesh, state_path=state, **options),
    )
    rows = parallel.sharded(mesh, np.arange(8.0))
    return {
        "devices": [mesh.size, len(jax.local_devices())],
        "rows": [rows.is_fully_addressable, parallel.on_host(rows).tolist()],
        "logits": float(np.abs(np.asarray(made) - np.asarray(model(weights, x))).max()),
        "robust": [one.robust_accuracy, both.robust_accuracy],
        "images": float(np.abs(one.images - both.images).max()),
        "a part of the devices": raised(lambda: parallel.make_mesh("data=2")),
        "state": state.exists(),
    }


@pytest.fixture(scope="module")
def found(build_once) -> list[dict]:
    """What this file prints in each of two processes with two devices."""

    def build(file: Path) -> None:
        address, directory = f"localhost:{free_port()}", file.parent
        started = [
            subprocess.Popen(
                [sys.executable, __file__, address, str(index), directory],
                env=environment(2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for index in (0, 1)
        ]  # fmt: skip
        printed = [process.communicate(timeout=200) for process in started]
        assert [process.returncode for process in started] == [0, 0], printed[0][1][-2000:]
        file.write_text(json.dumps([json.loads(out.splitlines()[-1]) for out, _ in printed]))

    return json.loads(build_once("two-processes", build).read_text())


def test_what_the_first_process_has_or_raises_is_had_and_raised_by_both(found):
    described = dict.fromkeys(("unknown", "unknown of another", "of two arguments"))
    agreed, other = (process["agree"] | described for process in found)
    assert agreed == other
    assert agreed["value"] == "of 0"
    assert agreed["sum"] == pytest.approx(np.random.default_rng(0).normal(size=20_000).sum())
    assert agreed["any"] == [True, False]
    assert agreed["nested"] == 1
    assert agreed["bad input"] == ["InputError", "Invalid."]
    assert agreed["disk"] == ["OSError", "[Errno 28] full: 'file'"]
    assert agreed["of another"] == ["InputError", "Not here."]


def test_an_error_that_cannot_be_sent_is_described(found):
    assert found[0]["agree"]["unknown"] == ["Unpicklable", "odd"]
    assert found[1]["agree"]["unknown"] == ["RuntimeError", "Unpicklable: odd"]
    assert found[0]["agree"]["unknown of another"] == ["RuntimeError", "Unpicklable: odd"]
    assert found[1]["agree"]["unknown of another"] == ["Unpicklable", "odd"]
    assert found[0]["agree"]["of two arguments"] == ["OfTwoArguments", "1 and 2"]
    assert found[1]["agree"]["of two arguments"] == ["RuntimeError", "OfTwoArguments: 1 and 2"]


def test_a_result_that_cannot_be_sent_fails_in_both(found):
    assert "lambda" in found[0]["agree"]["result"][1]
    assert found[1]["agree"]["result"] == found[0]["agree"]["result"]


def test_batches_and_attacks_on_devices_of_both_processes_have_the_results_of_one_device(found):
    for shared in (process["share"] for process in found):
        assert shared["devices"] == [4, 2]
        assert shared["rows"] == [False, list(range(8))]
        assert shared["logits"] < 1e-5
        assert 0 < shared["robust"][0] == shared["robust"][1] < 1
        assert shared["images"] < 1e-6
        assert shared["a part of the devices"][0] == "InputError"
        assert shared["state"]


JAX_ADDRESS = {"JAX_COORDINATOR_ADDRESS": "n:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("flags", "variables", "address"),
    [
        (("1",), {"SLURM_STEP_NUM_TASKS": "8"}, None),
        ((), {}, None),
        ((), {"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "one"}, None),
        ((), {"SLURM_STEP_NUM_TASKS": "8"}, processes.Address()),
        ((), {"TPU_WORKER_HOSTNAMES": "one,two"}, processes.Address()),
        (("cluster",), {}, processes.Address()),
        (("4", "n:1", 3), {}, processes.Address("n:1", 4, 3)),
        (("1", "n:1", 0), {}, None),
        ((), JAX_ADDRESS, processes.Address("n:1", 4, 3)),
    ],
)
def test_the_place_of_a_process_is_read_from_the_flags_or_the_environment(monkeypatch, flags, variables, address):
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES", *JAX_ADDRESS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes.find(*flags) == address


@pytest.mark.parametrize("flags", [("",), ("0",), ("-1",), ("two",), ("none",)])
def test_a_number_of_processes_that_is_none_is_refused(flags):
    with pytest.raises(InputError, match="expected auto, cluster, or how many there are"):
        processes.find(*flags)


@pytest.mark.parametrize("number", [2, None])
@pytest.mark.usefixtures("as_a_user")
def test_a_number_of_processes_that_is_no_string_is_refused(number):
    with pytest.raises(InputError, match=f"^Invalid processes {number}: expected a string, such as 'auto' or '2'"):
        processes.find(number)


def test_an_address_without_the_number_of_processes_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "n:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    with pytest.raises(InputError, match=r"^JAX_COORDINATOR_ADDRESS is n:1, but JAX_NUM_PROCESSES is not set: set it"):
        processes.find()


@pytest.mark.parametrize(
    "flags", [("2",), ("2", "n:1"), ("2", "n", 0), ("2", "n:1", 2), ("2", "n:1", -1), ("auto", "n:1", 0)]
)
def test_flags_that_do_not_give_a_place_together_are_refused(flags):
    with pytest.raises(InputError, match="Several processes need their number, a coordinator"):
        processes.find(*flags)


EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STUDY = [sys.executable, str(EXPERIMENTS / "study.py")]
FLAGS = (
    "--arch=mlp --dataset=digits --limit=400 --width=0.3 --seeds=1 --epochs=4 --held-out=0.2 --batch-size=42 "
    "--attack.steps=2 --attack.eps=0.1 --attack.step-size=0.05 --information.samples=60 --information.epochs=0 "
    "--evaluation.samples=60 --evaluation.steps=3 --evaluation.autoattack=apgd-ce,square "
    "--evaluation.autoattack-samples=60 --evaluation.budget.apgd-steps=4 --evaluation.budget.square-queries=20 "
    "--studies=fourier --study-samples=40"
)
RUN = [sys.executable, str(EXPERIMENTS / "run.py"), *shlex.split(FLAGS)]


def start_both(command: list[str], directory: Path) -> list[subprocess.Popen]:
    address = f"localhost:{free_port()}"
    return [
        subprocess.Popen(
            [*command, "--processes=2", f"--coordinator={address}", f"--process-index={index}"],
            env=environment(2), stdout=(directory / f"{index}.log").open("a"), stderr=subprocess.STDOUT,
        )
        for index in (0, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_of_two_processes_of_which_each_is_killed_once_ends_as_the_run_of_one(tmp_path):
    """Trains with early stopping, attacks, evaluates, studies and reports; the uneven batches do not divide by four."""
    two, one = tmp_path / "two", tmp_path / "one"
    study = [*STUDY, "confusion"]
    for killed, survivor in ((1, 0), (0, 1)):
        started = start_both([*RUN, f"--run-dir={two}"], tmp_path)
        steps = len(list(two.glob("checkpoints/*/0/[0-9]*")))
        while len(list(two.glob("checkpoints/*/0/[0-9]*"))) <= steps and started[0].poll() is None:
            time.sleep(0.1)
        started[killed].send_signal(signal.SIGKILL)
        # It leaves with the status to resume, unless JAX, which aborts a process without its first, is faster.
        assert started[survivor].wait(timeout=120) in ((75,) if survivor == 0 else (75, -signal.SIGABRT))
        started[killed].wait()
    for command in ([*RUN, f"--run-dir={two}"], [*study, str(two), "--samples=40"]):
        assert [process.wait(timeout=600) for process in start_both(command, tmp_path)] == [0, 0]
    for command in ([*RUN, f"--run-dir={one}"], [*study, str(one), "--samples=40"]):
        subprocess.run(command, env=environment(1), check=True, capture_output=True)
    expected, got = records.load(one), records.load(two)
    assert len(expected) == len(got) > 1000
    columns = ["training", "seed", "epoch", "quantity", "estimator", "layer", "noise_rule", "attack", "inputs"]
    keys = [table.sort_values([*columns, "n", "value"]).reset_index(drop=True) for table in (expected, got)]
    assert keys[0][columns].astype(str).equals(keys[1][columns].astype(str))
    np.testing.assert_allclose(keys[1].value, keys[0].value, rtol=1e-5, atol=1e-5)
    assert (two / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_with_the_status_to_resume(tmp_path):
    started = start_both([*RUN, "--epochs=400", f"--run-dir={tmp_path / 'run'}"], tmp_path)
    while not list(tmp_path.glob("run/checkpoints/*/0/[0-9]*")):
        time.sleep(0.1)
    started[1].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=200) for process in started] == [75, 75]


if __name__ == "__main__":
    processes.start(processes.Address(sys.argv[1], 2, int(sys.argv[2])))
    print(json.dumps({task.__name__: task() for task in (agree, share)}))
