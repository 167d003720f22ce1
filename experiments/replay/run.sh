#!/usr/bin/env bash
# The study's runs, one after the other. From the repository's root:
#   experiments/replay/run.sh RUNS [OPTION …]
# RUNS    where the sweeps and their store go; finished runs there are passed over, so the command can be typed again
# OPTION  more settings of every run, such as data=coco data.root=…
set -euo pipefail
runs=$1
shift

common=(seed=1,2,3,4,5 augment=crop_flip 'augment.crop_scale=[0.7,1.0]' augment.flip=false
  trainer.threads=1 trainer.progress_bar=false store="$runs/store" "$@")

sweep() {
  local name=$1
  shift
  python train.py -m "${common[@]}" "$@" hydra.sweep.dir="$runs/$name"
}

sweep supervised method=supervised
sweep live method=cam_kd teacher.replay=off
sweep float16 method=cam_kd teacher.replay=require teacher.replay_dtype=float16
sweep uint8 method=cam_kd teacher.replay=require teacher.replay_dtype=uint8
python experiments/replay/collect.py "$runs"
