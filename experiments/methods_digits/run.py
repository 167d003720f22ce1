"""Which distillation method helps a multi-label student? All of them, on the embedded scenes, with equal budgets.

python experiments/methods_digits/run.py [RUNS]      # trains what is left; RUNS: runs/methods_digits
python experiments/methods_digits/run.py tables      # writes README.md's tables and figures from the .csv files

The protocol is in README.md.
"""

from pathlib import Path

from tutelage.multilabel.study.command import main
from tutelage.multilabel.study.plan import Entry, Part, Study, Trial

# Five trials each. λ as multiples of the calibrated one, which comes first since the others need it.
WEIGHTS = tuple(Trial(name=f"x{factor:g}", factor=factor) for factor in (1, 0.3, 3, 0.1, 10))
FEW_WEIGHTS = tuple(Trial(name=f"x{factor:g}", factor=factor) for factor in (1, 0.2, 5))


def temperatures(low: float, high: float) -> tuple[Trial, ...]:
    """Three λ at the method's own temperature, and two other temperatures."""
    others = (Trial(name=f"T{t:g}", factor=1, overrides=(f"method.temperature={t:g}",)) for t in (low, high))
    return (*FEW_WEIGHTS, *others)


def method(name: str, family: str, *trials: Trial, softmax: bool = False) -> Entry:
    """One method under its own settings; a softmax over independent labels is named as such."""
    forced = ("method.force_softmax=true",) if softmax else ()
    return Entry(
        name=f"{name}_softmax" if softmax else name,
        family=family,
        overrides=(f"method={name}", *forced),
        trials=trials or WEIGHTS,
    )


LEARNING_RATES = tuple(
    Trial(name=f"lr{rate:g}", overrides=(f"optim.lr={rate:g}",)) for rate in (0.003, 0.0017, 0.0055, 0.001, 0.01)
)
METHODS = (
    Entry(name="supervised", family="baseline", overrides=("method=supervised",), trials=LEARNING_RATES),
    method("mse", "logits"),
    method("mld", "logits", *temperatures(0.5, 2)),
    method("cam_kd", "maps"),
    method("ps", "logits"),
    method("kd", "logits", *temperatures(2, 8), softmax=True),
    method("tld", "logits", *temperatures(0.25, 0.75)),  # at 1 it is mld
    method("nkd", "logits", *temperatures(0.5, 2), softmax=True),
    method("dkd", "logits", *temperatures(2, 8), softmax=True),
    method("logit_std", "logits", *temperatures(1, 4), softmax=True),
    method("mbd", "logits", *temperatures(2, 8)),
    method("dist", "logits", *temperatures(0.5, 2)),
    method("cat_kd", "maps"),
    method("cwd", "maps"),
    method("grad_cam", "maps"),
    method("at", "maps"),
    method("sdd", "maps"),
    method("rkd", "relations"),
    method("sp", "relations"),
    method("pkt", "relations"),
    method("crd", "relations"),
    method("l2d", "relations"),
    method("fitnet", "features"),
    method("wkd_f", "features"),
    method("ofd", "features"),
    method("lshfm", "features"),
    method("nst", "features"),
    method("ofa", "features", softmax=True),
    method("token_relation", "relations"),
    method("simkd", "features"),
    method("vid", "features"),
    method("reviewkd", "features"),
    method("kdsvd", "features"),
    method("vitkd", "features"),
    method("vkd", "features"),
)

# What supervision alone does with more time, averaged weights or another loss; with the learning rate chosen above.
SUPERVISION = {
    "supervised_2x": ("trainer.max_epochs=12",),
    "supervised_4x": ("trainer.max_epochs=24",),
    "supervised_ema": ("trainer.ema_decay=0.99",),
    "supervised_asl": ("loss=asl_mean",),
}


def axis_point(name: str, family: str, *overrides: str) -> Entry:
    """One point of the thesis axis, with three trials of λ."""
    return Entry(name=name, family=family, overrides=overrides, trials=FEW_WEIGHTS)


TEMPERATURES = (0.25, 0.5, 1, 2, 4)
SOFTMAX = ("method=kd", "method.force_softmax=true")
REGIONS = ("method=sdd", "method.host=mse", "method.complementary_weight=1")  # all regions weigh the same
AXIS = (
    *(axis_point(f"softmax_T{t:g}", "softmax-KL", *SOFTMAX, f"method.temperature={t:g}") for t in TEMPERATURES),
    *(axis_point(f"sigmoid_T{t:g}", "sigmoid-KL", "method=mld", f"method.temperature={t:g}") for t in TEMPERATURES),
    axis_point("mse_logits", "MSE of logits", "method=mse"),
    *(axis_point(f"regions_{r}", "MSE of regions", *REGIONS, f"method.grids=[{r}]") for r in (2, 4)),
    axis_point("maps_logit_part", "MSE of maps", "method=cam_kd", "method.spatial_weight=0"),
    axis_point("maps_spatial_part", "MSE of maps", "method=cam_kd", "method.logit_weight=0"),
    axis_point("maps", "MSE of maps", "method=cam_kd"),
)

# Another family of networks: the factor of λ is the first pair's, on a λ calibrated for this pair.
TRANSFORMER = ("model.student.name=test_vit", "model.student.resolution=96", "model.student.output_stride=null")
SECOND_PAIR = tuple(
    Entry(
        name=entry.name,
        family=entry.family,
        overrides=entry.overrides,
        trials=() if entry.name == "supervised" else WEIGHTS[:1],
        settings_of=entry.name,
    )
    for entry in METHODS
)

STUDY = Study(
    name="methods_digits",
    overrides=(
        "data=digits",
        "trainer=cpu",
        "trainer.threads=1",
        "trainer.progress_bar=false",
    ),
    selection_seed=0,
    parts=(
        Part(name="methods", title="Every method", entries=METHODS, seeds=(1, 2, 3, 4, 5)),
        Part(
            name="supervision",
            title="Supervision with more time, averages or another loss",
            entries=tuple(
                Entry(
                    name=name,
                    family="baseline",
                    overrides=("method=supervised", *overrides),
                    settings_of="supervised",
                )
                for name, overrides in SUPERVISION.items()
            ),
            seeds=(1, 2, 3),
        ),
        Part(name="axis", title="From logits to maps", entries=AXIS, seeds=(1, 2, 3)),
        Part(
            name="second_pair",
            title="A transformer as student",
            entries=SECOND_PAIR,
            seeds=(1, 2, 3),
            overrides=TRANSFORMER,
            best_and_worst=6,
            always=("supervised", "mse"),
        ),
    ),
    baselines=("supervised", "mse"),
)

if __name__ == "__main__":
    main(STUDY, folder=Path(__file__).parent)
