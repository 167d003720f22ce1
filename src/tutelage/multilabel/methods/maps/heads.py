"""What map methods ask of the networks' heads."""

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.network import Network


def require_mean_is_logit(student: Network, teacher: Network, *, key: str) -> None:
    """Refuse heads whose maps do not add up to the logits.

    Args:
        student: Trained.
        teacher: Frozen.
        key: The setting of the method that needs it.

    Raises:
        ConfigError: One of the heads pools its maps by something else than their mean.
    """
    for role, network in (("student", student), ("teacher", teacher)):
        if not network.head.mean_is_logit:
            raise ConfigError(
                f"method.{key}",
                f"the mean of the {role}'s maps is not its logits: head={type(network.head).__name__.lower()} pools "
                "them in another way",
                "choose head=linear, csra or ml_decoder",
            )
