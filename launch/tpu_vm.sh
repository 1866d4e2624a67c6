#!/usr/bin/env bash
# Trains on a TPU VM or on all hosts of a slice of them:
#
#     launch/tpu_vm.sh NAME ZONE TYPE --workdir gs://BUCKET/RUN [flags of train.py]
#
# as in `launch/tpu_vm.sh resnet us-central2-b v4-32 --workdir ...`. It creates the TPU if it is
# missing, copies the last commit of this checkout, installs it, and starts train.py, whose output is
# in resnet_jax/train.log of each host. After a preemption (delete the TPU first) the same command
# goes on with the run. VERSION is the runtime's (v5e: v2-alpha-tpuv5-lite, v6e: v2-alpha-tpuv6e),
# CREATE more options of `gcloud compute tpus tpu-vm create`, such as --spot.
set -euo pipefail
name=$1 zone=$2 type=$3
shift 3
cd "$(dirname "$0")/.."

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone"; }
on_all_hosts() { tpu ssh "$name" --worker=all --command="$1"; }

if ! tpu describe "$name" > /dev/null 2>&1; then
  # shellcheck disable=SC2086 # CREATE is several words
  tpu create "$name" --accelerator-type="$type" \
    --version="${VERSION:-tpu-ubuntu2204-base}" ${CREATE:-}
fi

# Buckets have no locks: a second trainer in the workdir is refused here.
on_all_hosts "if pgrep -f '[l]aunch/local.py' > /dev/null; then echo 'a run is going on' >&2; exit 1; fi"

archive=$(mktemp -d)/resnet_jax.tar.gz
git archive --format=tar.gz --prefix=resnet_jax/ --output="$archive" HEAD
tpu scp "$archive" "$name:" --worker=all
on_all_hosts "tar -xzf resnet_jax.tar.gz && cd resnet_jax && python3 -m pip install --quiet uv &&
  python3 -m uv venv --quiet --allow-existing --python 3.12 .venv &&
  python3 -m uv pip install --quiet --python .venv/bin/python -e '.[tpu,fast,gcs]'"

# jax finds the other hosts by itself. Each launcher starts its process again when it has to.
# To save and stop: pkill -TERM -f launch/local.py, with --worker=all.
on_all_hosts "cd resnet_jax && nohup .venv/bin/python launch/local.py \
  -- --distributed$(printf ' %q' "$@") >> train.log 2>&1 < /dev/null &"
