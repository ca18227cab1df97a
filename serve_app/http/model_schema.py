"""The schema of what `/v1/models` says of a model."""

from openai import types
from pydantic import BaseModel, ConfigDict

from serve_app.error_schema import Described


class ModelMeta(Described):
    """The context of a model, in the place where llama.cpp's server gives it."""

    n_ctx: int
    """The context in tokens."""


class ModelCard(types.Model):
    """OpenAI's description of a model, with the context under the names that other servers give it.

    The context of the mixture says how many tokens a conversation and its answer may have together. The
    number leaves room for references, and the proposers that the quorum needs can hold so much.
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
