"""The engines by name. Each is imported only when a recipe uses it."""

from importlib import import_module
from typing import cast

from actors.engine import Engine
from configs.schema import Model

# Each module has `create(name, model, threads) -> Engine`.
MODULES = {
    "llamacpp": "actors.engines.llamacpp",
    "openai_http": "actors.engines.openai_http",
    "scripted": "actors.engines.scripted",
}


def create(name: str, model: Model, threads: int) -> Engine:
    """Make the engine of `model`, not started. threads: CPU threads that it may use.

    Raises:
        ValueError: the model names an engine that does not exist.
    """
    try:
        module = import_module(MODULES[model.engine])
    except KeyError:
        known = ", ".join(MODULES)
        raise ValueError(f"engine {model.engine!r} of model {name!r}: there are {known}") from None
    return cast("Engine", module.create(name, model, threads))
