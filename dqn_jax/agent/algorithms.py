"""The members of the family, by name. A new one is a file of its own and a line here."""

from __future__ import annotations

from dqn_jax.agent.algorithm import Algorithm
from dqn_jax.agent.dqn import DQN
from dqn_jax.config import Config, ConfigError, suggest

ALGORITHMS: dict[str, Algorithm] = {
    "dqn": DQN,
}


def algorithm_for(config: Config) -> Algorithm:
    """The member that the settings ask for: by their field `algorithm`, DQN where they have none.

    Raises:
      ConfigError: if there is no such member, or it refuses one of the settings.
    """
    name = getattr(config, "algorithm", "dqn")  # while there is one member, no setting chooses
    if name not in ALGORITHMS:
        raise ConfigError(
            f"algorithm: '{name}' is not known.{suggest(name, ALGORITHMS)} Choose one of {', '.join(ALGORITHMS)}."
        )
    algorithm = ALGORITHMS[name]
    for setting, why in algorithm.refuses:
        if getattr(config, setting) != getattr(Config, setting):
            raise ConfigError(f"{setting}: {why}; leave it out with algorithm {name}.")
    return algorithm
