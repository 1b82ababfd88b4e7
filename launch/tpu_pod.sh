#!/usr/bin/env bash
# All workers of a TPU VM pod: launch/tpu_pod.sh NAME ZONE --config ... --workdir ...
# The repository is at ~/rtune on every worker, installed with: pip install -e '.[tpu]'
set -euo pipefail
name=$1 zone=$2
shift 2
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command \
  "cd rtune && python -m rtune.main --distributed $(printf '%q ' "$@")"
