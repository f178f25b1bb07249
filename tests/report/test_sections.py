"""Whatever became of a sweep, there is a page on it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from reporting import page_of
from synthetic import lane, sweep_of

DEGENERATE = {
    "one trial, one seed": sweep_of([lane(0, 0, converged_env_steps=50_000)]),
    "nothing converged": sweep_of([lane(t, s) for t in range(9) for s in range(2)]),
    "all at once": sweep_of([lane(t, s, converged_env_steps=50_000) for t in range(9) for s in range(2)]),
    "all diverged": sweep_of([lane(t, 0, status="diverged", env_steps=1_000, final_return=np.nan) for t in range(2)]),
    "all pruned": sweep_of([lane(t, s, status="pruned", env_steps=5_000) for t in range(2) for s in range(2)]),
    "one value": sweep_of(
        [lane(t, 0, converged_env_steps=10_000) for t in range(2)],
        {"batch_size": [32, 32], "max_grad_norm": [None] * 2},
    ),
    "no criterion": sweep_of([lane(0, s) for s in range(3)], {}, criteria=[]),
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_sweeps_are_reported(folder, name):
    page = page_of([folder(DEGENERATE[name])])
    assert not re.search(r"\bnan\b", page.text)
    if name in ("nothing converged", "all diverged", "all pruned"):
        assert "No seed of any trial converged" in page.text
        assert "none by 100,000" in page.text
        assert "Leading" not in page.text
    if name == "one trial, one seed":
        assert page.table("converged")[0]["mean environment steps"] == "50,000"  # no interval of one seed
