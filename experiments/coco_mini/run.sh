#!/usr/bin/env bash
# The study's runs. From the repository's root:
#   experiments/coco_mini/run.sh ROOT WEIGHTS RUNS [EPOCHS]
# ROOT     the images: train2017/, val2017/, annotations/
# WEIGHTS  ImageNet weights in timm's form: tf_efficientnet_lite0.pth, tf_efficientnet_lite2.pth
# RUNS     where the run folders go; a run that is already finished there is passed over
# EPOCHS   of the fine-tuned networks, 2 where it is not given; the network from scratch gets six times as many
set -euo pipefail
root=$1 weights=$2 runs=$3 epochs=${4:-2}

common=(data=coco data.root="$root" data.batch_size=16 data.workers=0 data.cache=memory augment=flip loss=bce
  model=tf_efficientnet_lite2_to_tf_efficientnet_lite0 model.teacher.weights="$weights/tf_efficientnet_lite2.pth"
  optim=adamw_cosine optim.lr=3e-4 optim.head_lr_factor=10 trainer=cpu trainer.progress_bar=false
  trainer.max_epochs="$epochs")
taught=(method=cam_kd model.teacher.checkpoint="$runs/teacher/checkpoints/best.ckpt")
lite0=(model.student.weights="$weights/tf_efficientnet_lite0.pth")
small=(model.student.name=mobilenetv2_035 model.student.weights=none optim.lr=2e-3 optim.head_lr_factor=1
  trainer.max_epochs="$((6 * epochs))")

run() {
  local name=$1
  shift
  [[ -f $runs/$name/metrics.json ]] || python train.py "${common[@]}" "$@" run="$runs/$name"
}

run teacher method=supervised \
  model.student.name=tf_efficientnet_lite2 model.student.weights="$weights/tf_efficientnet_lite2.pth"
run lite0_supervised method=supervised "${lite0[@]}"
run lite0_cam_kd "${taught[@]}" "${lite0[@]}"
run small_supervised method=supervised "${small[@]}"
run small_cam_kd "${taught[@]}" "${small[@]}"
python experiments/coco_mini/collect.py "$runs"
