"""What holds for the keys that a model's configuration leaves out: the defaults of its class.

vLLM reads a configuration through transformers, whose classes fill in what the file does not say. The
defaults of the families that transformers knew when this table was written are bundled in
`configs/class_defaults.json` (`python -m docs.class_defaults` writes it). So a plan says the same
whether transformers is installed or not. For a family that is not in the table, transformers is asked
if it is installed. Code from a checkpoint's folder is never run.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def bundled_defaults() -> dict[str, dict[str, Any]]:
    """The bundled defaults by `model_type`."""
    text = resources.files("configs").joinpath("class_defaults.json").read_text("utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def with_class_defaults(
    values: Mapping[str, Any], family: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The keys of a configuration, and the defaults that hold for those that it leaves out.

    Args:
        values: the keys of the language model.
        family: its `model_type`.
    """
    table = bundled_defaults()
    if family in table:
        return values, table[family]
    return values, _filled_by_transformers(values, family)


def _filled_by_transformers(values: Mapping[str, Any], family: str) -> Mapping[str, Any]:
    """All keys as the class in transformers fills them in; none if there is no such class here."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        if family not in CONFIG_MAPPING:
            return {}
        filled: dict[str, Any] = CONFIG_MAPPING[family](**values).to_dict()
    # A class checks its keys in its own way, and may raise anything. The file's own keys remain.
    except Exception:
        return {}
    return filled
