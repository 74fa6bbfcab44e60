#!/bin/bash
# One run on a TPU VM of one host, which is made again when it is preempted:
#     experiments/jobs/tpu_vm.sh NAME ZONE --preset=paper --dataset=cifar10 --run-dir=/mnt/runs/cifar10-vgg
set -euo pipefail
name=$1 zone=$2
shift 2
flags=$(printf '%q ' "$@")
while true; do
    gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1 ||
        gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type=v5litepod-4 \
            --version=v2-alpha-tpuv5-lite --spot
    status=0
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --command="mi-jax run $flags" || status=$?
    case $status in
    75 | 255) # stopped with its state saved, or the VM is gone: the run directory is on storage that survives it
        gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet || true
        ;;
    *) exit "$status" ;;
    esac
done
