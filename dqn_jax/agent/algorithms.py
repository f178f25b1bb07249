"""The members of the family, by the loss that chooses them. A new one is a file of its own and a line here."""

from __future__ import annotations

from dqn_jax.agent.algorithm import Algorithm
from dqn_jax.agent.c51 import C51
from dqn_jax.agent.dqn import DQN
from dqn_jax.agent.hl_gauss import HL_GAUSS
from dqn_jax.agent.iqn import IQN
from dqn_jax.agent.qr_dqn import QR_DQN
from dqn_jax.config import Config, ConfigError, suggest

ALGORITHMS: dict[str, Algorithm] = {
    "squared": DQN,
    "huber": DQN,
    "categorical": C51,
    "hl_gauss": HL_GAUSS,
    "quantile": QR_DQN,
    "implicit_quantile": IQN,
}


def algorithm_for(config: Config) -> Algorithm:
    """The member that the settings ask for by their loss.

    Raises:
      ConfigError: if there is no such loss, or its algorithm refuses one of the settings.
    """
    if config.loss not in ALGORITHMS:
        raise ConfigError(
            f"loss: '{config.loss}' is not known.{suggest(config.loss, ALGORITHMS)} "
            f"Choose one of {', '.join(ALGORITHMS)}."
        )
    algorithm = ALGORITHMS[config.loss]
    for setting, why in algorithm.refuses:
        if getattr(config, setting) != getattr(Config, setting):
            raise ConfigError(f"{setting}: {why}; leave it out with loss {config.loss}.")
    return algorithm
