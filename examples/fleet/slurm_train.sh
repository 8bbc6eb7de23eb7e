#!/usr/bin/env bash
# Trains one noise level on several machines; run from the project's folder, which all nodes see:
#     sbatch --nodes=2 --gpus-per-node=4 examples/fleet/slurm_train.sh 0.5
# It goes on from the last checkpoint after --requeue, and 10 s after one of its processes was lost (docs/multi-host.md).
#SBATCH --job-name=train
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else a node that comes back does not find the others
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun torchrun --nnodes "$SLURM_NTASKS" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 40000))" --rdzv-id "$SLURM_JOB_ID" \
    -m pipelines.train --sigma "$1"
