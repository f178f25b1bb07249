"""What counts as solved, for each environment, and where that is from."""

from __future__ import annotations

from dqn_jax.config import exact

# Raw scores of random play and of a human tester: up to 30 no-ops at the start, half an hour of play. They are those
# that come with dqn_zoo (Quan & Ostrovski 2020, atari_data.py), which are those of most papers since 2016; the human of
# Mnih et al. 2015 differs (Pong 9.3, MsPacman 15,693, ...). Of EnvPool's other games no human score is published there.
ATARI_SCORES: dict[str, tuple[float, float]] = {
    "Alien-v5": (227.8, 7127.7),
    "Amidar-v5": (5.8, 1719.5),
    "Assault-v5": (222.4, 742.0),
    "Asterix-v5": (210.0, 8503.3),
    "Asteroids-v5": (719.1, 47388.7),
    "Atlantis-v5": (12850.0, 29028.1),
    "BankHeist-v5": (14.2, 753.1),
    "BattleZone-v5": (2360.0, 37187.5),
    "BeamRider-v5": (363.9, 16926.5),
    "Berzerk-v5": (123.7, 2630.4),
    "Bowling-v5": (23.1, 160.7),
    "Boxing-v5": (0.1, 12.1),
    "Breakout-v5": (1.7, 30.5),
    "Centipede-v5": (2090.9, 12017.0),
    "ChopperCommand-v5": (811.0, 7387.8),
    "CrazyClimber-v5": (10780.5, 35829.4),
    "Defender-v5": (2874.5, 18688.9),
    "DemonAttack-v5": (152.1, 1971.0),
    "DoubleDunk-v5": (-18.6, -16.4),
    "Enduro-v5": (0.0, 860.5),
    "FishingDerby-v5": (-91.7, -38.7),
    "Freeway-v5": (0.0, 29.6),
    "Frostbite-v5": (65.2, 4334.7),
    "Gopher-v5": (257.6, 2412.5),
    "Gravitar-v5": (173.0, 3351.4),
    "Hero-v5": (1027.0, 30826.4),
    "IceHockey-v5": (-11.2, 0.9),
    "Jamesbond-v5": (29.0, 302.8),
    "Kangaroo-v5": (52.0, 3035.0),
    "Krull-v5": (1598.0, 2665.5),
    "KungFuMaster-v5": (258.5, 22736.3),
    "MontezumaRevenge-v5": (0.0, 4753.3),
    "MsPacman-v5": (307.3, 6951.6),
    "NameThisGame-v5": (2292.3, 8049.0),
    "Phoenix-v5": (761.4, 7242.6),
    "Pitfall-v5": (-229.4, 6463.7),
    "Pong-v5": (-20.7, 14.6),
    "PrivateEye-v5": (24.9, 69571.3),
    "Qbert-v5": (163.9, 13455.0),
    "Riverraid-v5": (1338.5, 17118.0),
    "RoadRunner-v5": (11.5, 7845.0),
    "Robotank-v5": (2.2, 11.9),
    "Seaquest-v5": (68.4, 42054.7),
    "Skiing-v5": (-17098.1, -4336.9),
    "Solaris-v5": (1236.3, 12326.7),
    "SpaceInvaders-v5": (148.0, 1668.7),
    "StarGunner-v5": (664.0, 10250.0),
    "Surround-v5": (-10.0, 6.5),
    "Tennis-v5": (-23.8, -8.3),
    "TimePilot-v5": (3568.0, 5229.2),
    "Tutankham-v5": (11.4, 167.6),
    "UpNDown-v5": (533.4, 11693.2),
    "Venture-v5": (0.0, 1187.5),
    "VideoPinball-v5": (16256.9, 17667.9),
    "WizardOfWor-v5": (563.5, 4756.5),
    "YarsRevenge-v5": (3092.9, 54576.9),
    "Zaxxon-v5": (32.5, 9173.3),
}
"""Random play and human, by full name."""

# Training returns of the DQN of Young & Tian 2019 (arXiv 1903.03176) after 5 million frames, mean of 30 runs, read off
# its curves to about 2 % of the axis. They are of MinAtar itself, with all six actions and exploration 0.1.
_MINATAR_RETURNS = {
    "Asterix-MinAtar": 16.8,
    "Breakout-MinAtar": 10.0,
    "Freeway-MinAtar": 50.2,
    "Seaquest-MinAtar": 20.0,  # before the oxygen of its version 1.0.11
    "SpaceInvaders-MinAtar": 43.8,
}


def human_normalised(random: float, human: float) -> tuple[str, ...]:
    """Criteria at 50, 25 and 100 % of the way from random play to the human; the first one decides."""
    # Rounded where the scores' own digits end; all of those stay.
    return tuple(f"eval>={exact(round(random + share * (human - random), 6))}" for share in (0.5, 0.25, 1.0))


# The first one decides. What counts as solved is asked of first passage, of settling (which costs nothing: it is read
# off the same evaluations) and in training. Not so of MinAtar and Atari, whose levels are means that others reached and
# not marks of being solved: an agent at such a mean is below it in every other evaluation, and would never settle.
_CRITERIA = {
    "CartPole-v0": ("eval>=195x3", "settled>=195", "train100>=195"),
    "CartPole-v1": ("eval>=475x3", "settled>=475", "train100>=475", "train100>=195"),
    "Acrobot-v1": ("eval>=-100x3", "settled>=-100", "train100>=-100"),
    "MountainCar-v0": ("eval>=-110x3", "settled>=-110", "train100>=-110"),
    "Pendulum-v1": ("eval>=-200", "settled>=-200", "eval>=-160", "train100>=-200"),
    "MountainCarContinuous-v0": ("eval>=90", "settled>=90", "train100>=90"),
    # As Gymnasium registers them.
    "Taxi-v3": ("eval>=8", "settled>=8", "train100>=8"),
    "FrozenLake-v1": ("eval>=0.7", "settled>=0.7", "train100>=0.7"),
    "FrozenLake8x8-v1": ("eval>=0.85", "settled>=0.85", "train100>=0.85"),
    "LunarLander-v2": ("eval>=200", "settled>=200", "train100>=200"),
    "LunarLander-v3": ("eval>=200", "settled>=200", "train100>=200"),
    **{env: (f"eval>={value:g}", f"train100>={value:g}") for env, value in _MINATAR_RETURNS.items()},
    **{env: human_normalised(*scores) for env, scores in ATARI_SCORES.items()},
}


def criteria_of(env: str) -> tuple[str, ...]:
    """The criteria of an environment by its full name, with or without EnvPool's prefix; none if none are known."""
    return _CRITERIA.get(env.removeprefix("envpool:"), ())
