"""The engines by name. An engine's module is imported only when a recipe uses that engine."""

from importlib import import_module
from typing import cast

from actors.engine import Engine, Share
from configs.errors import EngineUnavailable
from configs.schema import Model

MODULES = {
    "llamacpp": "actors.engines.llamacpp",
    "openai_http": "actors.engines.openai_http",
    "scripted": "actors.engines.scripted",
    "vllm": "actors.engines.vllm",
}
"""Module of each engine. Every module has a function `create(name, model, share) -> Engine`."""


def create(name: str, model: Model, share: Share) -> Engine:
    """Create the engine of `model` without starting it.

    Args:
        name: the model's name in the recipe.
        model: the model's settings.
        share: the part of its card that the engine may use.

    Raises:
        ValueError: the model names an engine that does not exist.
        EngineUnavailable: a package that the engine needs is not installed.
    """
    try:
        module = import_module(MODULES[model.engine])
    except KeyError:
        known = ", ".join(MODULES)
        raise ValueError(f"engine {model.engine!r} of model {name!r}: there are {known}") from None
    except ModuleNotFoundError as error:
        page = "docs/vllm.md" if model.engine == "vllm" else "README.md"
        message = f"engine {model.engine!r} needs {error.name}, which is not installed; see {page}"
        raise EngineUnavailable(message, model=name) from error
    return cast("Engine", module.create(name, model, share))
