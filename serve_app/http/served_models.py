"""The models that the API serves by name: the mixture and each model of its recipe."""

import time
from typing import Any

from fastapi import Request

from configs.errors import UnknownModel
from configs.schema import Recipe
from serve_app.access.api_keys import Key
from serve_app.access.auth import KEY
from serve_app.http.model_schema import ModelCard, ModelMeta
from serve_app.mixture.context_budget import context_tokens


class ServedModels:
    """Describes the mixture and its models to the keys that may use them."""

    def __init__(self, recipe: Recipe) -> None:
        created = int(time.time())
        settings = {name: recipe.settings(name) for name in recipe.names}
        owners = {recipe.name: "slimmoa", **{name: m.engine for name, m in settings.items()}}
        contexts = {name: model.context_tokens for name, model in settings.items()}
        contexts[recipe.name] = context_tokens(recipe)
        self._cards = {
            name: _card(name, created, owner, contexts[name]) for name, owner in owners.items()
        }

    def require(self, model: str, key: Key) -> None:
        """Check that a model is served and that the key may use it.

        Raises:
            UnknownModel: the model is not served, or the key may not use it. The message is the same in
                both cases and names only the models that the key may use.
        """
        names = self.names(key)
        if model not in names:
            raise UnknownModel(f"no model {model!r} here; there are {', '.join(names)}", param="model")

    async def list_models(self, http: Request) -> dict[str, Any]:
        """List the mixture and its models, as far as the key may use them."""
        return {"object": "list", "data": [self._cards[name] for name in self.names(http.scope[KEY])]}

    async def get_model(self, http: Request, model: str) -> dict[str, Any]:
        """Describe the mixture or one of its models, by name."""
        self.require(model, http.scope[KEY])
        return self._cards[model]

    def names(self, key: Key) -> list[str]:
        """The model names that the key may use."""
        allowed = key.allowance.models
        return [name for name in self._cards if allowed is None or name in allowed]


def _card(name: str, created: int, owner: str, context: int) -> dict[str, Any]:
    card = ModelCard(
        id=name,
        created=created,
        object="model",
        owned_by=owner,
        max_model_len=context,
        context_length=context,
        context_window=context,
        max_context_length=context,
        meta=ModelMeta(n_ctx=context),
    )
    return card.model_dump()
