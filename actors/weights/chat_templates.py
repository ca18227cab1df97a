"""The chat template of a model, which frames a conversation as the model has learned it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.weights.files import here
from actors.weights.folders import folder_here
from actors.weights.gguf_headers import GGUF_TEMPLATE, known_header
from cluster.plan.gguf import NotGguf, read_header
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_FILE = "tokenizer_config.json"
TEMPLATE_FILES = (TEMPLATE_FILE, TOKENIZER_FILE, "chat_template.json")
"""Files of a folder that may have a template, in the order in which they are asked."""
OWN_FRAMES = ("tekken.json", "tokenizer.model.v3", "tokenizer.model.v7")
"""Files of Mistral's own tokenizers, which frame conversations without a template."""
MORE_TEMPLATES = "additional_chat_templates"
"""A folder with further templates."""
LONGEST_BYTES = 64 << 20
"""Bytes of the longest configuration of a tokenizer that is read."""


def missing_templates(recipe: Recipe) -> Iterator[str]:
    """A line for each model of a recipe that is known to have no chat template: what to do."""
    for name, model in recipe.models.items():
        if has_template(model) is False:
            does = (
                "llama.cpp frames its messages as ChatML"
                if isinstance(model, LlamaCppModel)
                else "vLLM refuses its calls"
            )
            own = "" if isinstance(model, LlamaCppModel) else f", or put a {TEMPLATE_FILE} beside it"
            yield (
                f"model {name!r} has no chat template and may be a base model: {does}; take "
                f"the version of the model that is made for chat (-Instruct, -it, -chat){own}"
            )


def has_template(model: Model) -> bool | None:
    """Whether a model has a chat template; None if this machine does not know, or it needs none."""
    if isinstance(model, LlamaCppModel):
        header = None
        with suppress(NotGguf, OSError):
            path = here(model.weights)
            header = known_header(model.weights) if path is None else read_header(path)
        return None if header is None else bool(header.metadata.get(GGUF_TEMPLATE))
    if not isinstance(model, VllmModel) or model.load_format == "dummy":
        return None
    folder = folder_here(model.weights)
    if folder is None or not (folder / TOKENIZER_FILE).is_file():
        return None
    names = {file.name for file in folder.iterdir()}
    return bool(folder_template(folder)) or bool(names & {*OWN_FRAMES, MORE_TEMPLATES})


def folder_template(folder: Path) -> str:
    """The chat template of a model's folder; "" if it has none."""
    for name in TEMPLATE_FILES:
        file = folder / name
        if file.is_file() and file.stat().st_size <= LONGEST_BYTES:
            text = file.read_text("utf-8", "replace")
            if template := text if name == TEMPLATE_FILE else template_in_json(text):
                return template
    return ""


def template_in_json(text: str) -> str:
    """The chat template in a tokenizer's configuration; the default one if there are several."""
    with suppress(ValueError, AttributeError):
        template: Any = json.loads(text).get("chat_template", "")
        if isinstance(template, list):
            named = {each.get("name"): each.get("template") for each in template}
            template = named.get("default", "")
        return template if isinstance(template, str) else ""
    return ""
