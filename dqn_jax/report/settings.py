"""The settings that did not vary: those that apply, and what they would be by default."""

from __future__ import annotations

from typing import Any

from dqn_jax.config import SETTINGS, ConfigError, DeviceSettings, PoolSettings, own_fields, show
from dqn_jax.envs import find_env
from dqn_jax.report.page import Cell, Paragraph, Table


def fixed_settings(settings: dict[str, Any]) -> list[Paragraph | Table]:
    """A table of what applies to the environment, and the names of what does not.

    Args:
      settings: of sweep.json, or of a run as one.
    """
    own = {**settings["config"], **settings["hparams"]}
    apart = _elsewhere(own, settings["vary"])
    shown = {name: value for name, value in own.items() if name not in settings["vary"] and name not in apart}
    rows = []
    for name, value in shown.items():
        usual = show(SETTINGS[name].default) if name in SETTINGS else "-"
        rows.append([Cell.of(name), Cell.of(show(value)), Cell.of("" if show(value) == usual else usual)])
    items: list[Paragraph | Table] = [
        Paragraph("Settings that did not vary, and the default of those that differ from it:"),
        Table(("setting", "value", "default"), rows),
    ]
    if apart:
        items.append(Paragraph(f"Without a meaning here, and left out: {', '.join(apart)}."))
    return items


def _elsewhere(own: dict[str, Any], varied: dict[str, Any]) -> list[str]:
    """Settings that another kind of environment has, or that the value of another setting switches off."""
    try:
        names = own_fields(DeviceSettings if find_env(str(own["env"])).in_pool else PoolSettings)
    except (ConfigError, KeyError):  # an environment of another machine's
        names = []
    for name, setting in SETTINGS.items():
        needs = setting.only_where
        if needs is not None and needs.other in own and needs.other not in varied and not needs.holds(own[needs.other]):
            names.append(name)
    return [name for name in names if name in own and name not in varied]
