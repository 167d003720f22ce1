"""Scores one network on the test split: its numbers, its interval, and where its maps point."""

# B batch, K labels, N images

from dataclasses import dataclass

from lightning.pytorch import LightningModule, Trainer

from tutelage.core.errors import ConfigError
from tutelage.multilabel import metrics as scoring
from tutelage.multilabel.data.datamodule import MultilabelDataModule
from tutelage.multilabel.data.source import Batch, SplitName
from tutelage.multilabel.metrics import MultilabelScores, Prediction
from tutelage.multilabel.networks.ensemble import Ensemble
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field
from tutelage.multilabel.results.localisation import Localisation

PERCENT = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What of a trained network is scored.

    Attributes:
        split: ``test``; ``val`` or ``train`` are for a finished run (``evaluate.py run=… scoring.split=val``).
        threshold: The probability from which a label counts as predicted, in CP, CR, CF1, OP, OR, OF1 and items.csv.
    """

    split: SplitName = "test"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError("scoring.threshold", f"{self.threshold} is not a probability", "give one between 0 and 1")


@dataclass(frozen=True, slots=True)
class Scored:
    """One network's test result.

    Attributes:
        metrics: Percentages by name: mAP and its 95 % interval, CF1, …, pointing_game, cam_mass.
        prediction: The logits behind them, one row an image.
    """

    metrics: dict[str, float]
    prediction: Prediction


class ScoringModule(LightningModule):
    """Runs a network over a split and computes its scores."""

    def __init__(self, network: Network | Ensemble, datamodule: MultilabelDataModule, *, threshold: float) -> None:
        super().__init__()
        self.network = network
        self.split = datamodule.source.split(datamodule.test_split)
        self.scores = MultilabelScores(num_labels=network.shape.num_labels, threshold=threshold)
        self.localisation = Localisation(num_labels=network.shape.num_labels)
        self.has_boxes = any(self.split.boxes(index) is not None for index in range(len(self.split.ids)))
        self.reads: frozenset[Field] = frozenset({"cams_BKHW"}) if self.has_boxes else frozenset()
        self.result: Scored | None = None

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        shown = self.network(batch.images_BCHW, reads=self.reads)
        self.scores.update(shown.logits_BK, batch.target_BK, batch.index_B)
        if shown.cams_BKHW is not None:
            boxes = [self.split.boxes(index) if index >= 0 else None for index in batch.index_B.tolist()]
            self.localisation.update(shown.cams_BKHW, boxes, batch.index_B)

    def on_test_epoch_end(self) -> None:
        """Compute here, where the states are still on the device: after the test they lie on the CPU, and a process
        group of GPUs (NCCL) cannot gather from there.
        """
        found = {name: float(value) for name, value in self.scores.compute().items()}
        if self.has_boxes:
            found |= {name: float(value) for name, value in self.localisation.compute().items()}
        prediction = self.scores.prediction()
        low, high = scoring.score_interval(prediction.logits_NK, prediction.targets_NK)
        found |= {"mAP_low": low, "mAP_high": high}
        self.result = Scored({name: PERCENT * value for name, value in found.items()}, prediction)


def scored(
    trainer: Trainer, network: Network | Ensemble, datamodule: MultilabelDataModule, *, threshold: float = 0.5
) -> Scored:
    """Score a network on the data module's test split, over all processes of the trainer."""
    module = ScoringModule(network, datamodule, threshold=threshold)
    was_training = network.training
    trainer.test(module, datamodule=datamodule, verbose=False)
    network.train(was_training)
    assert module.result is not None
    return module.result
