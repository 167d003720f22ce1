#!/usr/bin/env bash
# The study's runs. From the repository's root:
#   experiments/coco_mini/run.sh ROOT WEIGHTS RUNS [NAME …]
# ROOT     the images: train2017/, val2017/, annotations/
# WEIGHTS  ImageNet weights in timm's form: tf_efficientnet_lite0.pth, tf_efficientnet_lite2.pth
# RUNS     where the run folders go; a run that is already finished there is passed over
# NAME     only these runs; without one all six, then results.csv and the table
set -euo pipefail
root=$1 weights=$2 runs=$3
shift 3
wanted=("$@")

common=(data=coco data.root="$root" data.batch_size=16 data.workers=0 data.cache=memory augment=crop_flip
  'augment.crop_scale=[0.5,1.0]' loss=bce
  model=tf_efficientnet_lite2_to_tf_efficientnet_lite0 model.teacher.weights="$weights/tf_efficientnet_lite2.pth"
  optim=adamw_cosine optim.lr=3e-4 optim.head_lr_factor=10 trainer=cpu trainer.threads=1
  trainer.progress_bar=false)
taught=(method=cam_kd model.teacher.checkpoint="$runs/teacher/checkpoints/best.ckpt")
lite0=(trainer.max_epochs=4 model.student.frozen=batch_norm model.student.weights="$weights/tf_efficientnet_lite0.pth")
small=(model.student.name=mobilenetv2_035 model.student.weights=none optim.lr=2e-3 optim.head_lr_factor=1
  trainer.max_epochs=6)

run() {
  local name=$1
  shift
  [[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $name "* ]] || return 0
  [[ -f $runs/$name/metrics.json ]] || python train.py "${common[@]}" "$@" run="$runs/$name"
}

run probe method=supervised trainer.max_epochs=6 model.student.frozen=backbone optim.lr=3e-3 optim.head_lr_factor=1 \
  model.student.name=tf_efficientnet_lite2 model.student.weights="$weights/tf_efficientnet_lite2.pth"
run teacher method=supervised trainer.max_epochs=4 optim.lr=1e-4 model.student.name=tf_efficientnet_lite2 \
  model.student.frozen=batch_norm model.student.checkpoint="$runs/probe/checkpoints/best.ckpt"
run lite0_supervised method=supervised "${lite0[@]}"
run lite0_cam_kd "${taught[@]}" "${lite0[@]}"
run small_supervised method=supervised "${small[@]}"
run small_cam_kd "${taught[@]}" "${small[@]}"
[[ ${#wanted[@]} -gt 0 ]] || python experiments/coco_mini/collect.py "$runs"
