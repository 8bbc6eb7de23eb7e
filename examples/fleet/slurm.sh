#!/usr/bin/env bash
# Certifies one noise level as a job array; run from the project's folder, which all nodes see:
#     sbatch --array=1-100 examples/fleet/slurm.sh 0.5
# A lost job's images are taken over by the jobs that end after it; --requeue starts it again as well.
#SBATCH --job-name=certify
#SBATCH --cpus-per-task=2
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
exec python -m pipelines.certify --sigma "$1" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --rows shared_rows
