#!/usr/bin/env bash
# The study's runs. From the repository's root:
#   experiments/coco_mini/run.sh ROOT WEIGHTS RUNS [NAME …]
# ROOT     the images: train2017/, val2017/, annotations/
# WEIGHTS  ImageNet weights in timm's form: tf_efficientnet_lite0.pth, tf_efficientnet_lite2.pth
# RUNS     where the run folders go; a run that is already finished there is passed over
# NAME     only these runs; without one all seven, then results.csv and the table
set -euo pipefail
root=$1 weights=$2 runs=$3
shift 3
wanted=("$@")

common=(data=coco data.root="$root" data.batch_size=16 data.workers=0 data.cache=memory loss=bce optim=adamw_cosine
  model=tf_efficientnet_lite2_to_tf_efficientnet_lite0 model.teacher.weights="$weights/tf_efficientnet_lite2.pth"
  trainer=cpu trainer.threads=1 trainer.progress_bar=false)
lite0=(model.student.name=tf_efficientnet_lite0 model.student.weights="$weights/tf_efficientnet_lite0.pth")
lite2=(model.student.name=tf_efficientnet_lite2 model.student.weights="$weights/tf_efficientnet_lite2.pth")
small=(model.student.name=mobilenetv2_035 model.student.weights=none)

crops=(augment=crop_flip 'augment.crop_scale=[0.5,1.0]')
probing=("${crops[@]}" model.student.frozen=backbone optim.lr=3e-3 trainer.max_epochs=6)
tuning=(augment=rand_augment augment.flip=true model.student.frozen=batch_norm model.student.drop_path=0.1
  optim.lr=2e-4 optim.head_lr_factor=5 trainer.ema_decay=0.995)
scratch=("${crops[@]}" optim.lr=2e-3 trainer.ema_decay=0.995 trainer.max_epochs=12)
taught=(method=cam_kd model.teacher.checkpoint="$runs/teacher/checkpoints/best.ckpt")

run() {
  local name=$1
  shift
  [[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $name "* ]] || return 0
  [[ -f $runs/$name/metrics.json ]] || python train.py "${common[@]}" "$@" run="$runs/$name"
}
best() { echo "model.student.checkpoint=$runs/$1/checkpoints/best.ckpt"; }

run probe method=supervised "${lite2[@]}" "${probing[@]}"
run teacher method=supervised "${lite2[@]}" "$(best probe)" "${tuning[@]}" trainer.max_epochs=8
run lite0_probe method=supervised "${lite0[@]}" "${probing[@]}"
run lite0_supervised method=supervised "${lite0[@]}" "$(best lite0_probe)" "${tuning[@]}" trainer.max_epochs=6
run lite0_cam_kd "${taught[@]}" "${lite0[@]}" "$(best lite0_probe)" "${tuning[@]}" trainer.max_epochs=6
run small_supervised method=supervised "${small[@]}" "${scratch[@]}"
run small_cam_kd "${taught[@]}" "${small[@]}" "${scratch[@]}"
[[ ${#wanted[@]} -gt 0 ]] || python experiments/coco_mini/collect.py "$runs"
