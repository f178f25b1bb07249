"""A run on disk: its folder, settings and provenance."""

from dqn_jax.runs.folder import (
    claim_run_dir,
    find_run,
    load_metrics,
    load_summary,
    never_begun,
    new_run_dir,
    save_summary,
)
from dqn_jax.runs.provenance import (
    FRESH_GAMES,
    load_provenance,
    note_fresh_games,
    provenance_of,
)
from dqn_jax.runs.settings import (
    RunSettings,
    changed_settings,
    load_settings,
    save_settings,
    settings_from,
)

__all__ = [
    "FRESH_GAMES",
    "RunSettings",
    "changed_settings",
    "claim_run_dir",
    "find_run",
    "load_metrics",
    "load_provenance",
    "load_settings",
    "load_summary",
    "never_begun",
    "new_run_dir",
    "note_fresh_games",
    "provenance_of",
    "save_settings",
    "save_summary",
    "settings_from",
]
