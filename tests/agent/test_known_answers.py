"""A tabular problem whose answers are known: what each member learns of it is right, within a stated tolerance."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tabular
from tabular import DISCOUNT, SHARE

from dqn_jax.config import Config

# A chain of four places. Action 1 goes right, and from the last place out of it, for 0 or 2, as likely. Action 0 goes
# left, from the first place nowhere, and pays a little. The best is to go right.
STATES, ACTIONS = 4, 2
LUCK, LEFT = (0.0, 2.0), 0.02


def outcomes():
    """All that can happen, as likely each, `[16]`: state, action, reward, whether it goes on, next state."""
    rows = []
    for state in range(STATES):
        for action in range(ACTIONS):
            for luck in LUCK:
                out = action == 1 and state == STATES - 1
                after = min(state + 1, STATES - 1) if action == 1 else max(state - 1, 0)
                rows.append((state, action, luck if out else LEFT * (action == 0), not out, after))
    return tabular.outcomes_of(rows)


def values(backup):
    """The fixed point of a target, `[STATES, ACTIONS]`."""
    return tabular.values(backup, outcomes(), STATES, ACTIONS)


def learnt(config, **changes):
    """What is predicted for each state after learning, leaves `[keys, STATES, ...]`."""
    return tabular.learnt(config, tabular.transitions_of(outcomes(), STATES), ACTIONS, **changes)


def test_the_oracle_knows_the_chain():
    best = values("greedy")
    np.testing.assert_allclose(best[:, 1], DISCOUNT ** np.arange(3, -1, -1), rtol=1e-6)
    np.testing.assert_allclose(best[1:, 0], LEFT + DISCOUNT * best[:-1, 1], rtol=1e-6)
    assert list(best.argmax(-1)) == [1, 1, 1, 1]
    # Advantage learning keeps what states are worth, and widens gaps by 1 / (1 - alpha): Bellemare et al. 2016.
    wide = values("advantage")
    np.testing.assert_allclose(wide.max(-1), best.max(-1), rtol=1e-6)
    np.testing.assert_allclose(np.ptp(wide, -1), np.ptp(best, -1) / (1 - SHARE), rtol=1e-6)


SUPPORT = {"v_min": -3.0, "v_max": 3.0}
FASTER = {"learning_rate": 0.2}


@pytest.mark.parametrize(
    ("settings", "hparams", "tolerance"),
    [
        ({"loss": "squared"}, {}, 2e-3),
        ({"loss": "squared", "double": True}, {}, 2e-3),
        ({"loss": "huber"}, {}, 2e-3),
        ({"loss": "squared", "target": "expected_sarsa"}, {}, 2e-3),
        ({"loss": "squared", "target": "expected_sarsa", "exploration": "boltzmann"}, {}, 2e-3),
        ({"loss": "squared", "target": "munchausen"}, {}, 5e-3),
        ({"loss": "squared", "target": "advantage"}, {}, 5e-3),
        # Projecting keeps the mean of what lies inside the support.
        ({"loss": "categorical"}, SUPPORT, 0.02),
        ({"loss": "categorical", "double": True, "target": "expected_sarsa"}, SUPPORT, 0.02),
        ({"loss": "categorical", "target": "munchausen"}, SUPPORT, 0.05),
        ({"loss": "categorical", "target": "advantage"}, SUPPORT | FASTER | {"updates": 3000}, 0.1),
        # A class is 0.12 wide, and the Gaussian around a target is as even as they are.
        ({"loss": "hl_gauss"}, SUPPORT, 0.02),
        ({"loss": "hl_gauss", "target": "munchausen"}, SUPPORT, 0.03),
        # Half of the quantiles are of either luck; of a mixture their mean is near the mean, and no more.
        ({"loss": "quantile", "atoms": 10}, {"kappa": 0.0}, 0.02),
        ({"loss": "quantile", "atoms": 10, "target": "expected_sarsa"}, {"kappa": 0.0}, 0.1),
        ({"loss": "quantile", "atoms": 10, "target": "munchausen"}, {"kappa": 0.0}, 0.05),
        ({"loss": "quantile", "atoms": 10, "double": True, "target": "advantage"}, {"kappa": 0.0}, 0.05),
    ],
    ids=str,
)
def test_values_are_those_of_the_target(settings, hparams, tolerance):
    config = Config(**settings)
    q = learnt(config, **hparams).q_values[0]
    np.testing.assert_allclose(q, values(tabular.backup_of(config)), atol=tolerance)


def test_c51_learns_the_fixed_point_of_its_projected_operator():
    """Not the distribution itself: projecting spreads it at every step back, here from 2 atoms to many."""
    learned = learnt(Config(loss="categorical", atoms=21), v_min=-0.5, v_max=2.5, **FASTER)
    atoms, (state, action, reward, goes_on, after) = np.linspace(-0.5, 2.5, 21), outcomes()
    p = np.full((STATES, ACTIONS, 21), 1 / 21)
    for _ in range(300):
        best, new = (p @ atoms).argmax(-1), np.zeros_like(p)
        for s, a, r, go, t in zip(state, action, reward, goes_on, after, strict=True):
            z = np.clip(r + DISCOUNT * go * atoms, atoms[0], atoms[-1])
            share = np.maximum(0.0, 1.0 - np.abs(z[:, None] - atoms) / (atoms[1] - atoms[0]))
            new[s, a] += p[t, best[t]] @ share / len(LUCK)
        p = new
    np.testing.assert_allclose(jax.nn.softmax(learned.atoms[0]), p, atol=0.02)
    np.testing.assert_allclose(learned.support[0, 0], atoms, rtol=1e-6, atol=1e-6)


def lucks():
    """Returns of the greedy policy with either luck, `[STATES, ACTIONS, 2]`, by playing it out."""
    played = np.zeros((STATES, ACTIONS, len(LUCK)))
    for state in range(STATES):
        right = DISCOUNT ** (STATES - 1 - state) * np.array(LUCK)
        played[state, 1] = right
        after = max(state - 1, 0)
        played[state, 0] = LEFT + DISCOUNT * DISCOUNT ** (STATES - 1 - after) * np.array(LUCK)
    return played


def test_qr_dqn_learns_the_quantiles_of_the_returns():
    learned = learnt(Config(loss="quantile", atoms=6), kappa=0.0)
    np.testing.assert_allclose(learned.taus[0, 0], (np.arange(6) + 0.5) / 6, rtol=1e-6)
    np.testing.assert_allclose(learned.atoms[0], np.repeat(lucks(), 3, axis=-1), atol=0.01)


def test_iqn_learns_the_quantiles_of_the_returns_at_fractions_it_never_saw():
    """From cosines of the fraction: the step between the two lucks is not sharp, and means are of those drawn."""
    config = Config(loss="implicit_quantile", atoms=8)
    learned = learnt(config, keys=range(40), hidden=(32,), learning_rate=0.005, kappa=0.1)
    taus, quantiles = learned.taus[:, :, None].repeat(ACTIONS, 2), learned.atoms
    assert taus.shape == quantiles.shape == (40, STATES, ACTIONS, 8)
    for luck, drawn in ((0, taus < 0.35), (1, taus > 0.65)):
        off = np.abs(quantiles - lucks()[None, :, :, luck, None])
        assert np.mean(off[drawn]) < 0.2  # the lucks are 1.5 to 2 apart
    np.testing.assert_allclose(learned.q_values.mean(0), values("greedy"), atol=0.12)
    assert np.all(np.ptp(learned.taus, axis=0) > 0.5)  # every look draws for itself
