"""What runs and sweeps that are drawn or compared together are called, and which settings apply to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dqn_jax.config import ConfigError, show

_MOST = 3  # settings in a label
_LONGEST = 32  # characters of one value in it


def telling_labels(
    names: Sequence[str], settings: Sequence[Mapping[str, object]], stamps: Sequence[str], given: Sequence[str] = ()
) -> list[str]:
    """One label for each: those given, or the names; equal names with what sets them apart.

    Args:
      names: of the runs or sweeps.
      settings: of each, by name.
      stamps: of each, what its folder is called.
      given: labels that somebody chose, one for each, or none.

    Raises:
      ConfigError: if there are labels, but not one for each.
    """
    if given and len(given) != len(names):
        raise ConfigError(f"label: {len(given)} for {len(names)} folders; give --label once for each, in their order.")
    labels = list(given or names)
    for name in [name for name, count in Counter(names).items() if count > 1 and not given]:
        alike = [i for i, own in enumerate(names) if own == name]
        fields = {field: None for i in alike for field in settings[i]}
        texts = {field: [show(settings[i].get(field)) for i in alike] for field in fields}
        differing = [field for field, values in texts.items() if len(set(values)) > 1][:_MOST]
        for place, i in enumerate(alike):
            labels[i] = ", ".join([name, *(f"{field} {_short(texts[field][place])}" for field in differing)])
    repeated = Counter(labels)
    labels = [
        f"{label}, {stamp}" if repeated[label] > 1 else label for label, stamp in zip(labels, stamps, strict=True)
    ]
    repeated = Counter(labels)  # the same folder twice, or folders of one name
    return [f"{label} ({i + 1})" if repeated[label] > 1 else label for i, label in enumerate(labels)]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def ranges(seeds: Sequence[int]) -> str:
    """Seeds as a person writes them, `0-63, 100`: what follows one another by its first and last."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1][1:] = [seed]
        else:
            parts.append([seed])
    return ", ".join("-".join(map(str, part)) for part in parts)


def literal(text: str) -> str:
    """A text of somebody's own as matplotlib takes it: no formula, one line, and in the legend even with '_x'."""
    text = " ".join(text.split()).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
