#!/usr/bin/env bash
# Tests and measures rtune on one GPU, within eight minutes and without a network:
#   launch/gpu_check.sh [WHEELS] [--out FOLDER] [--dry]
# Before, where there is a network: launch/gpu_check.sh --wheels WHEELS fills that folder with what
# a machine lacks that has Python 3.12, jax, flax, optax and orbax. All flags: --help.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python3}" -m rtune.benchmark.gpu_check "$@"
