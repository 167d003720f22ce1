"""Do the findings of experiments/methods_digits hold on real pictures? Twelve methods on coco_mini at 128 pixels.

python experiments/methods_coco_mini/run.py ROOT WEIGHTS [RUNS]   # trains what is left
python experiments/methods_coco_mini/run.py tables                # writes README.md's tables and figures

ROOT is coco_mini; WEIGHTS has timm's tf_efficientnet_lite0.pth and tf_efficientnet_lite2.pth. README.md has the
protocol.
"""

from pathlib import Path

from tutelage.multilabel.study.command import main
from tutelage.multilabel.study.plan import Entry, Part, Preparation, Study, Trial

WEIGHTS = tuple(Trial(name=f"x{factor:g}", factor=factor) for factor in (1, 0.2, 5))
LEARNING_RATES = tuple(Trial(name=f"lr{rate:g}", overrides=(f"optim.lr={rate:g}",)) for rate in (2e-4, 1e-4, 4e-4))

LITE0 = ("model.student.name=tf_efficientnet_lite0", "model.student.weights={weights}/tf_efficientnet_lite0.pth")
LITE2 = ("model.student.name=tf_efficientnet_lite2", "model.student.weights={weights}/tf_efficientnet_lite2.pth")
# The recipes of experiments/coco_mini.
CROPS = ("augment=crop_flip", "augment.crop_scale=[0.5,1.0]")
WHOLE = ("augment=rand_augment", "augment.flip=true")
PROBE = (*CROPS, "model.student.frozen=backbone", "optim.lr=3e-3", "trainer.max_epochs=6")
FINE_TUNED = (
    "model.student.frozen=batch_norm",
    "model.student.drop_path=0.1",
    "optim.lr=2e-4",
    "optim.head_lr_factor=5",
    "trainer.ema_decay=0.995",
)
SUPERVISED = ("method=supervised",)
TEACHER = (*SUPERVISED, *LITE2, "model.student.checkpoint={probe2}/checkpoints/best.ckpt", *FINE_TUNED)
STUDENT = (
    *LITE0,
    "model.student.checkpoint={probe0}/checkpoints/best.ckpt",
    "model.teacher.checkpoint={teacher}/checkpoints/best.ckpt",
    *WHOLE,
    *FINE_TUNED,
    "trainer.max_epochs=6",
)
METHODS = {
    "mse": "logits",
    "mld": "logits",
    "tld": "logits",
    "cam_kd": "maps",
    "cat_kd": "maps",
    "sdd": "maps",
    "at": "maps",
    "rkd": "relations",
    "pkt": "relations",
    "l2d": "relations",
    "fitnet": "features",
    "reviewkd": "features",
}

STUDY = Study(
    name="methods_coco_mini",
    overrides=(
        "data=coco",
        "data.root={root}",
        "data.resolution=128",
        "data.batch_size=16",
        "data.workers=0",
        "data.cache=memory",
        "loss=bce",
        "optim=adamw_cosine",
        "model=tf_efficientnet_lite2_to_tf_efficientnet_lite0",
        "model.teacher.weights={weights}/tf_efficientnet_lite2.pth",
        "trainer=cpu",
        "trainer.threads=1",
        "trainer.progress_bar=false",
    ),
    selection_seed=0,
    places=("root", "weights"),
    preparations=(
        Preparation(name="probe_lite2", stands_for="probe2", overrides=(*SUPERVISED, *LITE2, *PROBE)),
        Preparation(name="probe_lite0", stands_for="probe0", overrides=(*SUPERVISED, *LITE0, *PROBE)),
        # The better of the two teaches.
        Preparation(name="teacher_whole", stands_for="teacher", overrides=(*TEACHER, *WHOLE, "trainer.max_epochs=8")),
        Preparation(name="teacher_crops", stands_for="teacher", overrides=(*TEACHER, *CROPS, "trainer.max_epochs=8")),
    ),
    parts=(
        Part(
            name="methods",
            title="Twelve methods",
            overrides=STUDENT,
            entries=(
                Entry(name="supervised", family="baseline", overrides=SUPERVISED, trials=LEARNING_RATES),
                *(
                    Entry(name=name, family=family, overrides=(f"method={name}",), trials=WEIGHTS)
                    for name, family in METHODS.items()
                ),
            ),
            seeds=(1, 2, 3),
        ),
    ),
    baselines=("supervised", "mse"),
)

if __name__ == "__main__":
    main(STUDY, folder=Path(__file__).parent)
