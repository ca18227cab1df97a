"""The schema of what `/v1/models` says of a model."""

from openai import types
from pydantic import BaseModel, ConfigDict

from serve_app.error_schema import Described


class ModelMeta(Described):
    """The context of a model where llama.cpp's server tells it."""

    n_ctx: int
    """Its context."""


class ModelCard(types.Model):
    """OpenAI's description of a model, with the context under the names that other servers give it.

    The context of the mixture is most tokens of a conversation and its answer. References, and models
    with a smaller context that the quorum needs, are taken into account.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_model_len: int
    """The context in tokens, as vLLM names it."""
    context_length: int
    """The same, as OpenRouter and others name it."""
    context_window: int
    """The same, as Groq names it."""
    max_context_length: int
    """The same, as Mistral and LM Studio name it."""
    meta: ModelMeta
    """The same, as llama.cpp names it."""


class ModelList(BaseModel):
    """The models that the key may use."""

    object: str
    data: list[ModelCard]
