"""What a report says first."""

from __future__ import annotations

import numpy as np
from reporting import END, page_of
from synthetic import lane, sweep_of


def test_values_that_no_policy_is_worth_and_seeds_that_fell_are_said_first(folder):
    ends = [500.0, 300.0, 480.0, 200.0]
    lanes = [lane(0, s, converged_env_steps=20_000.0, stability=0.5, final_return=r) for s, r in enumerate(ends)]
    data = sweep_of(lanes, {}, criteria=["eval>=475"])
    data.settings["hparams"]["discount"] = 0.98  # of CartPole's rewards of 1: 50 at most
    data.curves["q_mean"] = np.where(data.curves["seed"] < 3, 300.0, 40.0) * data.curves["env_steps"] / END
    page = page_of([folder(data)])
    assert "At the last evaluation 2 of 4 seeds were below 475; converged, then fell: 2 of 4." in page.text
    assert "Mean Q passed its bound in 3 of 4 seeds, up to 300: no policy is worth more than 50 here" in page.text
    assert "Mean Q passed what any policy can be worth in 3 of 4 lanes" in page.text
    assert "seed 3: mean Q 40 at the end, 40 at most" in page.titles
    assert "no policy is worth more than 50" in page.titles


def test_without_a_criterion_the_page_says_how_to_give_one_and_shows_returns(folder):
    page = page_of([folder(sweep_of([lane(0, s, final_return=100.0 * s) for s in range(3)], {}, criteria=[]))])
    assert "Nothing says what converged means on CartPole-v1" in page.text
    assert "--criteria gives one, such as 'eval>=475'" in page.text
    assert "Last evaluation of 3 seeds: mean 100, worst seed 0, best 200" in page.text
    assert "ranked by" not in page.text
    assert "fell" not in page.text
