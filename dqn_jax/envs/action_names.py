"""What the actions of an environment are called, which neither EnvPool nor gymnax says.

Atari's names and the minimal set of each game are the Arcade Learning Environment's (Bellemare et al. 2013, JAIR 47;
`isMinimal` in its games/supported/). EnvPool's games take the same actions by the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dqn_jax.envs.pool_tasks import is_atari
from dqn_jax.types import EnvSpec

_DIRECTIONS = "UP RIGHT LEFT DOWN UPRIGHT UPLEFT DOWNRIGHT DOWNLEFT"
_ALL = f"NOOP FIRE {_DIRECTIONS} " + " ".join(f"{direction}FIRE" for direction in _DIRECTIONS.split())
_MINIMAL = {  # of games that need fewer than all 18
    "Backgammon": "FIRE RIGHT LEFT",
    "Freeway": "NOOP UP DOWN",
    "Skiing": "NOOP RIGHT LEFT",
    "Atlantis Atlantis2": "NOOP FIRE RIGHTFIRE LEFTFIRE",
    "Blackjack Casino": "NOOP FIRE UP DOWN",
    "Breakout Kaboom": "NOOP FIRE RIGHT LEFT",
    "Frogger Pacman Surround": "NOOP UP RIGHT LEFT DOWN",
    "Tetris": "NOOP FIRE RIGHT LEFT DOWN",
    "VideoCheckers": "FIRE UPRIGHT UPLEFT DOWNRIGHT DOWNLEFT",
    "AirRaid Carnival DemonAttack Galaxian NameThisGame Pong SirLancelot SpaceInvaders": (
        "NOOP FIRE RIGHT LEFT RIGHTFIRE LEFTFIRE"
    ),
    "BasicMath KingKong Qbert": "NOOP FIRE UP RIGHT LEFT DOWN",
    "Bowling Pooyan UpNDown": "NOOP FIRE UP DOWN UPFIRE DOWNFIRE",
    "Assault": "NOOP FIRE UP RIGHT LEFT RIGHTFIRE LEFTFIRE",
    "Gopher": "NOOP FIRE UP RIGHT LEFT UPFIRE RIGHTFIRE LEFTFIRE",
    "Phoenix": "NOOP FIRE RIGHT LEFT DOWN RIGHTFIRE LEFTFIRE DOWNFIRE",
    "Tutankham": "NOOP UP RIGHT LEFT DOWN UPFIRE RIGHTFIRE LEFTFIRE",
    "Asterix CrazyClimber Koolaid LostLuggage MsPacman": f"NOOP {_DIRECTIONS}",
    "BeamRider": "NOOP FIRE UP RIGHT LEFT UPRIGHT UPLEFT RIGHTFIRE LEFTFIRE",
    "Enduro": "NOOP FIRE RIGHT LEFT DOWN DOWNRIGHT DOWNLEFT RIGHTFIRE LEFTFIRE",
    "VideoPinball": "NOOP FIRE UP RIGHT LEFT DOWN UPFIRE RIGHTFIRE LEFTFIRE",
    "Amidar MrDo TimePilot WizardOfWor": "NOOP FIRE UP RIGHT LEFT DOWN UPFIRE RIGHTFIRE LEFTFIRE DOWNFIRE",
    "Othello TicTacToe3d VideoChess": f"NOOP FIRE {_DIRECTIONS}",
    "Turmoil": f"NOOP FIRE {_DIRECTIONS} RIGHTFIRE LEFTFIRE",
    "Asteroids": (
        "NOOP FIRE UP RIGHT LEFT DOWN UPRIGHT UPLEFT UPFIRE RIGHTFIRE LEFTFIRE DOWNFIRE UPRIGHTFIRE UPLEFTFIRE"
    ),
    "KeystoneKapers": f"NOOP FIRE {_DIRECTIONS} UPFIRE RIGHTFIRE LEFTFIRE DOWNFIRE",
    "KungFuMaster": (
        "NOOP UP RIGHT LEFT DOWN DOWNRIGHT DOWNLEFT "
        "RIGHTFIRE LEFTFIRE DOWNFIRE UPRIGHTFIRE UPLEFTFIRE DOWNRIGHTFIRE DOWNLEFTFIRE"
    ),
    "JourneyEscape": (
        f"NOOP {_DIRECTIONS} RIGHTFIRE LEFTFIRE DOWNFIRE UPRIGHTFIRE UPLEFTFIRE DOWNRIGHTFIRE DOWNLEFTFIRE"
    ),
}
_CLASSIC = {  # as in Gymnasium's documentation
    "CartPole": "left right",
    "MountainCar": "left none right",
    "Acrobot": "torque-1 torque0 torque+1",
}
_WITHOUT_FIRE = ("LostLuggage", "Skiing")  # their full sets are 9 actions


def action_names(spec: EnvSpec, *, full: bool) -> list[str]:
    """A name for each action of a pool's environment; of what is no Atari game, their numbers.

    Args:
      spec: of the pool.
      full: whether it has all actions that its game allows, or the minimal set.
    """
    if not is_atari(spec.name):
        return [str(action) for action in range(spec.num_actions)]
    game = spec.name.removesuffix("-v5")
    if full:
        return (f"NOOP {_DIRECTIONS}" if game in _WITHOUT_FIRE else _ALL).split()
    return next((names for games, names in _MINIMAL.items() if game in games.split()), _ALL).split()


def device_action_names(spec: EnvSpec, space: Any) -> list[str]:
    """A name for each action of a gymnax environment: of classic control its own, a bin's value, or a number.

    Args:
      spec: of the environment as it is played.
      space: gymnax's own space of actions, bounded and continuous where the actions are its bins.
    """
    if not hasattr(space, "n"):
        low, high = (float(np.ravel(end)[0]) for end in (space.low, space.high))
        return [f"{value:.3g}" for value in np.linspace(low, high, spec.num_actions)]
    names = _CLASSIC.get(spec.name.rsplit("-", 1)[0], "").split()
    return names if len(names) == spec.num_actions else [str(action) for action in range(spec.num_actions)]
