#!/bin/bash
# One run on all hosts of a TPU slice, which is recreated when it is preempted:
#     experiments/jobs/tpu_vm.sh NAME ZONE --preset=paper --dataset=cifar10 --run-dir=/mnt/runs/cifar10-vgg
# ACCELERATOR=v5litepod-16 has four hosts; the default has one. The run directory is on storage that survives them, and
# mi_jax is installed on a new host by its startup script or image.
set -euo pipefail
name=$1 zone=$2 restarts=0
shift 2
flags=$(printf '%q ' "$@")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while true; do
    gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1 ||
        gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="${ACCELERATOR:-v5litepod-4}" \
            --version=v2-alpha-tpuv5-lite --spot
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
        --command="mi-jax run --processes=cluster $flags; echo \"mi-jax left with status \$?\"" 2>&1 | tee "$log" || true
    left=" $(grep -o 'mi-jax left with status [0-9]*' "$log" | grep -o '[0-9]*$' | sort -u | tr '\n' ' ' || true)"
    for status in 2 1 127 126; do # bad input, an error, no mi-jax on the host: the same again fails again
        case $left in *" $status "*) exit "$status" ;; esac
    done
    [ "$left" != " 0 " ] || exit 0
    [ $((restarts += 1)) -le 100 ] || exit 75
    gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet || true # stopped, or the slice is gone
done
