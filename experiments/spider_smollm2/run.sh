#!/usr/bin/env bash
# Base, seed questions alone, and DB-Explore, from one model in one harness.
#   WEIGHTS=…/model.gguf SPIDER=…/spider experiments/spider_smollm2/run.sh small   # two CPU cores
#   SPIDER=…/spider experiments/spider_smollm2/run.sh full                         # a GPU, weights from the hub
set -euo pipefail
cd "$(dirname "$0")/../.."
common=(task=text2sql data=spider "data.root=$SPIDER" model=smollm2_135m trainer.progress_bar=false)
case "$1" in
small)
  common+=("model.path=$WEIGHTS" trainer=cpu trainer.precision=bf16-mixed trainer.max_epochs=1 trainer.log_every_n_steps=2
    adapter.rank=16 adapter.alpha=32 optim.lr=5e-4 data.max_length=640 data.batch_size=1 data.val_size=8 data.test_size=100
    inference.max_new_tokens=64 inference.batch_size=20)
  sft=(method.max_seeds=240)
  db_explore=(method.max_seeds=120 method.max_pairs=120 explore.walks=16 explore.per_level=6)
  ;;
full)
  common+=(trainer=auto trainer.precision=bf16-mixed trainer.max_epochs=3 data.max_length=4096 data.batch_size=8
    prompt=ddl prompt.max_tokens=3584 inference.batch_size=64)
  sft=()
  db_explore=(explore.walks=200 explore.per_level=100)
  ;;
esac
python train.py "${common[@]}" method=sft "${sft[@]}" report.base=true "run=runs/spider_smollm2/$1/sft"
python train.py "${common[@]}" method=db_explore method.held_out=0 explore.split=eval "${db_explore[@]}" \
  "run=runs/spider_smollm2/$1/db_explore"
python experiments/spider_smollm2/collect.py "runs/spider_smollm2/$1"
