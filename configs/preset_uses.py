"""What each recipe of the package is for: `slimmoa presets` sorts by this, and `serve --auto` chooses.

A recipe cannot say so itself, because a user's recipe needs no such setting.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PresetUse:
    """What one recipe of the package is for."""

    kind: Literal["gpu", "cpu", "fallback", "experiment", "form"]
    """`gpu` and `cpu`: for everyday questions, on a GPU or on a CPU alone. `fallback`: small models
    that can be had without a Hub. `experiment`: comparisons and tests. `form`: to be filled in."""
    gib: int = 0
    """GiB of the card, or of a machine's RAM, that the recipe is made for."""
    capability: float = 0.0
    """The least compute capability of GPUs that the recipe's number types are made for."""


EXPERIMENT = PresetUse("experiment")
USES = {
    "moa_h200": PresetUse("gpu", 141, 9.0),
    "moa_h100_80gb": PresetUse("gpu", 80, 9.0),
    "moa_a100_80gb": PresetUse("gpu", 80),
    "moa_48gb": PresetUse("gpu", 48),
    "moa_24gb": PresetUse("gpu", 24),
    "moa_16gb": PresetUse("gpu", 16),
    "moa_12gb": PresetUse("gpu", 12),
    "laptop_32gb": PresetUse("cpu", 32),
    "laptop_16gb": PresetUse("cpu", 16),
    "laptop_8gb": PresetUse("cpu", 8),
    "small_cpu": PresetUse("fallback", 2),
    "tiny_cpu": PresetUse("fallback", 1),
    "remote": PresetUse("form"),
}
"""By the preset's name. Presets that are not here are experiments."""


def use_of(preset: str) -> PresetUse:
    """What the preset of this name is for."""
    return USES.get(preset, EXPERIMENT)
