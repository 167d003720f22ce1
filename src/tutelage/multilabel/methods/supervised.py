"""No distillation: the student alone, or a teacher in training."""

from tutelage.multilabel.methods.method import Method


class Supervised(Method):
    """Learns from the labels only. Reads nothing of a teacher, so none is trained or loaded."""

    labels = "any"
