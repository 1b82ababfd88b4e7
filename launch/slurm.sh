#!/usr/bin/env bash
# One process a node of a SLURM allocation: sbatch --nodes=4 launch/slurm.sh --config ... --workdir ...
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
# SIGTERM two minutes before the limit saves the state; exit code 75 then asks for another turn.
srun python -m rtune.main --distributed "$@"
[ $? -ne 75 ] || scontrol requeue "$SLURM_JOB_ID"
