#!/usr/bin/env bash
#SBATCH --job-name=htr-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=htr-ray-%j.log
#
# One grid on nodes of a Slurm cluster; arguments are those of jobs/full_grid.py:
#
#   sbatch cluster/slurm.sh --config cluster/grid.yaml corpora=[/scratch/me/corpora/dhsd] \
#       storage=/scratch/me/runs tracking_uri=null
#
# Submit from the repository's root with the virtual environment active. storage and corpora must be on a
# file system that all nodes see, or on S3. --exclusive: `ray symmetric-run` stops all Ray processes of
# its node when it ends.
set -euo pipefail

export RAY_AUTH_MODE=token # all nodes read ~/.ray/auth_token from the shared home
if ! ray get-auth-token > /dev/null 2>&1; then
    ray get-auth-token --generate > /dev/null
fi
export RAY_TMPDIR="/tmp/ray-$USER-$SLURM_JOB_ID" # short: Unix sockets allow 107 characters
export RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head_node:$((20000 + SLURM_JOB_ID % 10000))" # clear of Ray's worker ports, 10002 to 19999

srun --kill-on-bad-exit=1 \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    -- env RAY_ADDRESS="$address" python jobs/full_grid.py "$@"
