"""Scores one network on the test split: its numbers, its interval, and where its maps point."""

# B batch, K labels, N images

from dataclasses import dataclass

from lightning.pytorch import LightningModule, Trainer

from tutelage.multilabel import metrics as scoring
from tutelage.multilabel.data.datamodule import MultilabelDataModule
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.metrics import MultilabelScores, Prediction
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field
from tutelage.multilabel.results.localisation import Localisation

PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class Scored:
    """One network's test result.

    Attributes:
        metrics: Percentages by name: mAP and its 95 % interval, CF1, …, pointing_game, cam_mass.
        prediction: The logits behind them, one row an image.
    """

    metrics: dict[str, float]
    prediction: Prediction


class Scoring(LightningModule):
    """Runs a network over the test split and gathers what its scores are made of."""

    def __init__(self, network: Network, datamodule: MultilabelDataModule) -> None:
        super().__init__()
        self.network = network
        self.split = datamodule.source.split("test")
        self.scores = MultilabelScores(num_labels=network.shape.num_labels)
        self.localisation = Localisation(num_labels=network.shape.num_labels)
        self.has_boxes = any(self.split.boxes(index) is not None for index in range(len(self.split.ids)))
        self.reads: frozenset[Field] = frozenset({"cams_BKHW"}) if self.has_boxes else frozenset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        shown = self.network(batch.images_BCHW, reads=self.reads)
        self.scores.update(shown.logits_BK, batch.target_BK, batch.index_B)
        if shown.cams_BKHW is not None:
            boxes = [self.split.boxes(index) if index >= 0 else None for index in batch.index_B.tolist()]
            self.localisation.update(shown.cams_BKHW, boxes, batch.index_B)


def scored(trainer: Trainer, network: Network, datamodule: MultilabelDataModule) -> Scored:
    """Score a network on the test split, over all processes of the trainer."""
    scoring_module = Scoring(network, datamodule)
    was_training = network.training
    trainer.test(scoring_module, datamodule=datamodule, verbose=False)
    network.train(was_training)
    found = {name: float(value) for name, value in scoring_module.scores.compute().items()}
    if scoring_module.has_boxes:
        found |= {name: float(value) for name, value in scoring_module.localisation.compute().items()}
    prediction = scoring_module.scores.prediction()
    low, high = scoring.bootstrap_interval(prediction.logits_NK, prediction.targets_NK)
    found |= {"mAP_low": low, "mAP_high": high}
    return Scored({name: PERCENT * value for name, value in found.items()}, prediction)
