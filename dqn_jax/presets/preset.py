"""A preset: settings under a name, with the criteria by which its agents are judged."""

from __future__ import annotations

import dataclasses

from dqn_jax.config import Config, HParams


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings under a name, with the criteria that say when its agents have converged."""

    name: str
    summary: str
    config: Config
    hparams: HParams = HParams()  # noqa: RUF009 - immutable
    criteria: tuple[str, ...] = ()
    seeds: int = 16
    note: str = ""
    """Said when it runs: which settings a bare name of an environment got."""
