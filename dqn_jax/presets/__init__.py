"""Named settings, protocols, and criteria by environment."""

from dqn_jax.presets.atari import (
    GAMES,
)
from dqn_jax.presets.preset import (
    Preset,
)
from dqn_jax.presets.protocols import (
    EVERYWHERE,
    PROTOCOLS,
    PaperProtocol,
    apply_protocol,
    describe_protocol,
)
from dqn_jax.presets.table import (
    PRESETS,
    check_changes,
    resolve_preset,
    with_overrides,
)
from dqn_jax.presets.thresholds import (
    ATARI_SCORES,
    criteria_of,
)

__all__ = [
    "ATARI_SCORES",
    "EVERYWHERE",
    "GAMES",
    "PRESETS",
    "PROTOCOLS",
    "PaperProtocol",
    "Preset",
    "apply_protocol",
    "check_changes",
    "criteria_of",
    "describe_protocol",
    "resolve_preset",
    "with_overrides",
]
