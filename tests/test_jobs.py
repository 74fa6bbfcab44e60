"""The recipes for batch systems: scripts run with stand-ins for the system's programs, manifests are read."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from mi_jax import processes
from mi_jax.cue_strength_sweep.run import Sweep

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "experiments" / "jobs"
SRUN = """#!/bin/bash
echo "$@" > arguments
bash -c 'trap "exit 75" TERM; echo $$ > command; touch started; for _ in $(seq 300); do sleep 0.1; done' &
trap 'kill -KILL $!; exit 137' TERM # what srun does with SIGTERM
wait $!
"""


@pytest.fixture
def batch_system(tmp_path):
    """A folder with programs that write down how they are called, and an environment that finds them first."""

    def program(name: str, text: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    program("srun", SRUN)
    program("scontrol", '#!/bin/bash\necho "$@" > requeued\n')
    slurm = {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(ROOT)}
    return program, {**os.environ, **slurm, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("script", "arguments", "array", "command", "requeued"),
    [
        (
            "run.sbatch",
            ["mi-jax", "run", "--run-dir=a b"],
            {},
            "--kill-on-bad-exit=1 mi-jax run --run-dir=a b",
            "requeue 17",
        ),
        (
            "sweep.sbatch",
            ["there", "--seeds=10"],
            {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"},
            "--kill-on-bad-exit=1 mi-jax sweep --rho-shape=2 --rho-texture=0.5,1,2,4 --run-dir=there/rho_shape-2 "
            "--seeds=10",
            "requeue 17_2",
        ),
    ],
)
def test_a_preempted_slurm_job_is_stopped_with_its_state_saved_and_queued_again(
    batch_system, tmp_path, script, arguments, array, command, requeued
):
    environment = batch_system[1] | array
    job = subprocess.Popen(["bash", JOBS / script, *arguments], cwd=tmp_path, env=environment)
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    if "#SBATCH --signal=TERM@" in (JOBS / script).read_text():  # the command, and with B: the script
        os.kill(int((tmp_path / "command").read_text()), signal.SIGTERM)
    else:
        job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    assert (tmp_path / "arguments").read_text().strip() == command
    assert (tmp_path / "requeued").read_text().strip() == requeued


@pytest.mark.parametrize(
    ("status", "tasks", "restarts", "left", "requeued"),
    [
        (0, 1, 0, 0, False),
        (2, 8, 0, 2, False),
        (137, 1, 0, 137, False),  # out of memory: again the next time
        (137, 8, 0, 75, True),  # a host is gone
        (134, 8, 0, 75, True),  # what JAX does when the first process is gone
        (75, 8, 100, 75, False),
    ],
)
def test_a_slurm_job_is_queued_again_only_after_a_stop_or_the_loss_of_a_process(
    batch_system, tmp_path, status, tasks, restarts, left, requeued
):
    program, environment = batch_system
    program("srun", f"#!/bin/bash\nexit {status}\n")
    environment |= {"SLURM_NTASKS": str(tasks), "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(["bash", JOBS / "run.sbatch", "mi-jax", "run"], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == left
    assert (tmp_path / "requeued").exists() == requeued


def test_the_job_array_has_one_task_for_each_row_of_its_grid():
    text = (JOBS / "sweep.sbatch").read_text()
    rows = tuple(float(value) for value in text.partition("rows=(")[2].partition(")")[0].split())
    assert f"--array=0-{len(rows) - 1}\n" in text
    assert len(Sweep(rho_shape=rows, rho_texture=rows).cells) == len(rows) ** 2


def test_kubernetes_starts_a_stopped_pod_again_and_no_pod_that_failed():
    job = yaml.safe_load((JOBS / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["backoffLimit"] == 0
    stopped, disrupted = job["spec"]["podFailurePolicy"]["rules"]
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which `podFailurePolicy` requires
    assert stopped == {
        "action": "Ignore",
        "onExitCodes": {"containerName": pod["containers"][0]["name"], "operator": "In", "values": [75]},
    }
    assert disrupted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_a_jobset_gives_every_pod_its_place_and_restarts_all_unless_the_input_is_bad():
    jobset = yaml.safe_load((JOBS / "jobset.yaml").read_text())
    name, (hosts,) = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    address = environment["JAX_COORDINATOR_ADDRESS"]
    assert address.startswith(f"{name}-{hosts['name']}-0-0.{name}:")  # the first pod's name in the JobSet's subdomain
    assert job["completionMode"] == "Indexed"
    assert int(environment["JAX_NUM_PROCESSES"]) == job["completions"] == job["parallelism"]
    assert processes.find("2", address, 1) == processes.Address(address, 2, 1)
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]


@pytest.mark.parametrize(
    ("statuses", "status", "made"),
    [
        ("75,75 255 0,0", 0, 3),
        ("2,2", 2, 1),
        ("75,0 0,0", 0, 2),
        ("1,75", 1, 1),  # the error of one process ends the others
        ("127,127", 127, 1),  # mi-jax is not there
        ("75 " * 101, 75, 101),
    ],
)
def test_a_tpu_vm_is_made_again_until_the_run_has_ended(batch_system, tmp_path, statuses, status, made):
    program, environment = batch_system
    program(
        "gcloud",
        f"""#!/bin/bash
echo "$@" >> calls
case $4 in
describe) exit 1 ;;
ssh)
    statuses=({statuses})
    for status in ${{statuses[$(grep -c ' ssh ' calls) - 1]//,/ }}; do
        [ "$status" = 255 ] || echo "mi-jax left with status $status"
    done
    exit 1
    ;;
esac
""",
    )
    command = ["bash", JOBS / "tpu_vm.sh", "vm", "zone", "--run-dir=/mnt/a b"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == status
    calls = (tmp_path / "calls").read_text()
    assert calls.count(" create vm ") == calls.count(" ssh vm ") == made
    assert r"--command=mi-jax run --processes=cluster --run-dir=/mnt/a\ b ;" in calls
