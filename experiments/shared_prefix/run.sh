#!/usr/bin/env bash
# The study's runs, one after the other. From the repository's root:
#   experiments/shared_prefix/run.sh RUNS WEIGHTS DATABASE [OPTION …]
# RUNS      where the runs and what was explored go; finished runs are passed over, so the command can be typed again
# WEIGHTS   SmolLM2-135M-Instruct: a folder, or a .gguf file
# DATABASE  an SQLite file; UNSHARED_LENGTH=… are the tokens of eight of its samples (5400 for Spider's concert_singer)
set -euo pipefail
runs=$1 weights=$2 database=$3
shift 3

[ -f "$runs/explored/pairs.jsonl" ] || python explore.py "database=$database" "out=$runs/explored" walks=64 per_level=80
common=(task=text2sql data=own "data.database=$database" "data.explored=$runs/explored" model=smollm2_135m
  "model.path=$weights" prompt=ddl method=db_explore method.max_pairs=72 trainer=cpu trainer.threads=1
  trainer.precision=bf16-mixed trainer.progress_bar=false trainer.max_epochs=1 adapter.rank=16 adapter.alpha=32
  optim.lr=5e-4 data.batch_size=1 data.val_size=24 data.test_size=8 inference.max_new_tokens=64 "$@")

train() {
  local folder=$runs/$1/$2
  [ -f "$folder/metrics.json" ] || python train.py "${common[@]}" "seed=$2" "run=$folder" "${@:3}"
}

for seed in 1 2 3; do  # a row, which is a step, holds eight samples of either kind
  train shared "$seed" data.prefix=shared data.branches=8 data.max_length=2048
  train unshared "$seed" data.prefix=none "data.max_length=${UNSHARED_LENGTH:-5400}"
done
python experiments/shared_prefix/collect.py "$runs"
