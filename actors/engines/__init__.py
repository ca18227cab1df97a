"""The engines by name. Each is imported only when a recipe uses it."""

from importlib import import_module
from typing import cast

from actors.engine import Engine, Share
from configs.errors import EngineUnavailable
from configs.schema import Model

# Each module has `create(name, model, share) -> Engine`.
MODULES = {
    "llamacpp": "actors.engines.llamacpp",
    "openai_http": "actors.engines.openai_http",
    "scripted": "actors.engines.scripted",
    "vllm": "actors.engines.vllm",
}


def create(name: str, model: Model, share: Share) -> Engine:
    """Make the engine of `model`, not started. share: what of its card it may use.

    Raises:
        ValueError: the model names an engine that does not exist.
        EngineUnavailable: what the engine needs is not installed.
    """
    try:
        module = import_module(MODULES[model.engine])
    except KeyError:
        known = ", ".join(MODULES)
        raise ValueError(f"engine {model.engine!r} of model {name!r}: there are {known}") from None
    except ModuleNotFoundError as error:
        message = f"engine {model.engine!r} needs {error.name}, which is not installed; see docs/"
        raise EngineUnavailable(message, model=name) from error
    return cast("Engine", module.create(name, model, share))
