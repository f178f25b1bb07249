"""Named settings, protocols, and criteria by environment."""

from dqn_jax.presets.atari import (
    GAMES,
)
from dqn_jax.presets.preset import (
    Preset,
)
from dqn_jax.presets.table import (
    PRESETS,
    check_changes,
    resolve_preset,
    with_overrides,
)

__all__ = [
    "GAMES",
    "PRESETS",
    "Preset",
    "check_changes",
    "resolve_preset",
    "with_overrides",
]
