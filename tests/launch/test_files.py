"""The files for clusters, without one: what they start exists, and what they say is passed on."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from tests.commands import run_command
from tests.test_processes import ROOT

FOLDER = ROOT / "launch"


def run(folder, script, *arguments, **programs):
    """Runs a script of launch/ where some programs are the given shell scripts."""
    (folder / "bin").mkdir()
    for name, text in {"python": f'exec {sys.executable} "$@"', **programs}.items():
        program = folder / "bin" / name
        program.write_text(f"#!/usr/bin/env bash\n{text}\n")
        program.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", FOLDER / script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8"},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_slurm_starts_train_py_by_srun_and_ends_with_its_status(tmp_path):
    done = run(tmp_path, "slurm.sbatch", "--workdir", "W", srun='echo "srun $*"; exit 2')
    assert done.communicate(timeout=30)[0] == (
        "[0] srun --kill-on-bad-exit=1 --cpus-per-task=8 python train.py "
        "--distributed --workdir W\n"
    )
    assert done.returncode == 2


def test_a_slurm_job_that_is_signalled_saves_and_is_queued_again(tmp_path):
    train = "trap 'echo saved; exit 75' TERM; echo ready; while :; do sleep 0.1; done"
    job = run(tmp_path, "slurm.sbatch", "--workdir", "W", srun=train, scontrol='echo "$*"')
    assert job.stdout.readline() == "[0] ready\n"
    job.terminate()
    assert job.communicate(timeout=30)[0].splitlines() == ["[0] saved", "requeue 17"]
    assert job.returncode == 75


@pytest.mark.parametrize("there", [True, False])
def test_a_tpu_vm_is_created_where_it_is_missing_and_runs_the_last_commit(tmp_path, there):
    gcloud = f"""
printf '%s\\0' "$@" >> {tmp_path}/calls; printf '\\n' >> {tmp_path}/calls
for word; do case $word in *.tar.gz) tar -tzf "$word" > {tmp_path}/archive;; esac; done
[[ $* != *describe* ]] || {str(there).lower()}
"""
    flags = ["--workdir", "gs://a bucket/run", "--config=configs/imagenet.py:resnet50"]
    done = run(tmp_path, "tpu_vm.sh", "net", "zone", "v4-32", *flags, gcloud=gcloud)
    done.communicate(timeout=60)
    assert done.returncode == 0
    calls = [call.split("\0") for call in (tmp_path / "calls").read_text().split("\0\n")[:-1]]
    verbs = [call[3] for call in calls]
    assert verbs == ["describe", *["create"] * (not there), "ssh", "scp", "ssh", "ssh"]
    assert all(call[:3] == ["compute", "tpus", "tpu-vm"] for call in calls)
    assert all("--zone=zone" in call for call in calls)
    assert "resnet_jax/train.py" in (tmp_path / "archive").read_text().splitlines()
    for call in calls:
        for command in (word[10:] for word in call if word.startswith("--command=")):
            subprocess.run(["bash", "-n", "-c", command], check=True)
    words = shlex.split(next(word for word in calls[-1] if word.startswith("--command="))[10:])
    begin = words.index("launch/local.py")
    assert words[begin : words.index(">>")] == ["launch/local.py", "--", "--distributed", *flags]


def test_the_containers_of_gke_share_a_slice_and_start_train_py(capsys):
    jobset = yaml.safe_load((FOLDER / "gke.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (hosts,) = jobset["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy wants it
    long, wide = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"]
    assert chips == int(long) * int(wide)

    program, script, *flags = container["command"]
    assert (program, script) == ("python", "train.py")
    known = run_command(capsys, "train.py", "--help").out
    for flag in flags:
        name = re.match(r"--(\w+)", flag)[1]
        assert re.search(rf"^ +--(\[no\])?{name}\b", known, re.MULTILINE), name


def test_the_image_has_what_it_installs_and_starts():
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert {"train.py", "setup.cfg", "resnet_jax", "configs", "launch"} <= set(copied)
    (extras,) = re.findall(r"\.\[\$EXTRA,([\w,]+)\]", (FOLDER / "Dockerfile").read_text())
    known = (ROOT / "setup.cfg").read_text()
    assert all(f"\n{extra} =" in known for extra in ["cuda", "tpu", *extras.split(",")])
    assert lines[-1] == 'ENTRYPOINT ["python", "launch/local.py"]'
