"""The names and attributes of spans. No attribute holds a text of a prompt, a proposal or an answer.

The names beginning with `gen_ai.` are those of OpenTelemetry's semantic conventions for generative AI,
release 0.1.0 (status: Development). What the conventions have no word for begins with `slimmoa.`.
Messages of errors are left out, because a message may quote a prompt, and so are the stop texts of a
request.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from configs.sampling import DEFAULTS
from configs.schema import Model, OpenAIHttpModel, Recipe, Sampling
from serve_app.mixture.events import StageStarted, Summary
from serve_app.observe import Asked

Value: TypeAlias = str | bool | int | float | Sequence[str]
Attributes: TypeAlias = dict[str, Value]

OPERATION = "gen_ai.operation.name"
CHAT = "chat"
WORKFLOW = "invoke_workflow"
ERROR = "error.type"
PREFIX = "slimmoa."
PROVIDERS = {"openai_http": "openai"}
"""The conventions' word for what runs a model, by the engine. Other engines have their own names: the
conventions have no words for them."""
PORTS = {"http": 80, "https": 443}
GIVEN = "(given)"
"""Stands for the model of a proposal that the client has given."""
SAMPLED = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "reasoning_effort": "gen_ai.request.reasoning.level",
}
"""The attributes of a call's sampling. A value that nobody has said has no attribute."""


def of_request(asked: Asked) -> Attributes:
    """The attributes of the span of a whole answer that are known at its beginning."""
    said: Attributes = {
        OPERATION: WORKFLOW if asked.is_mixture else CHAT,
        "slimmoa.request_id": asked.request_id,
        "slimmoa.key": asked.key,
        "slimmoa.stream": asked.is_stream,
    }
    if asked.is_mixture:
        # The second name is that of the conventions 1.41, which many programs still read.
        said |= {"gen_ai.agent.name": asked.model, "gen_ai.workflow.name": asked.model}
    else:
        said["gen_ai.request.model"] = asked.model
    return said


def of_stage(started: StageStarted) -> Attributes:
    """The attributes of the span of a stage."""
    return ours({"references": len(started.references)})


def shown_model(name: str, names: Container[str]) -> str:
    """The name of a model as spans show it. A client that gives proposals (`moa.fuse`) may call their
    writers what it likes, so a name that the recipe does not have is not shown."""
    return name if name in names else GIVEN


def of_summary(summary: Summary, names: Container[str]) -> Attributes:
    """The attributes of the span of a whole answer that are known at its end. What is 0 or false for
    most answers has no attribute then, because each one costs time to send.

    The tokens of all calls together have names of our own: programs that add up the tokens of a trace
    would otherwise count each token twice.
    """
    answered = summary.answered
    return ours(
        {
            "degraded": summary.degraded,
            "answered_by": shown_model(answered.model, names),
            "fallback": answered.fallback,
            "cut": answered.cut or None,
            "finish_reason": answered.finish_reason,
            "seed": summary.seed,
            "missing": len(summary.missing) or None,
            "retried": len(summary.retried) or None,
            "trimmed": len(summary.trimmed) or None,
            "calls": len(summary.calls),
            "input_tokens": sum(call.prompt_tokens for call in summary.calls),
            "output_tokens": sum(call.completion_tokens for call in summary.calls),
        }
    )


def of_models(recipe: Recipe) -> dict[str, Attributes]:
    """The attributes of each model and adapter, which are the same for all of its calls."""
    return {name: _of_model(name, recipe.settings(name)) for name in recipe.names}


def _of_model(name: str, settings: Model) -> Attributes:
    said: Attributes = {
        OPERATION: CHAT,
        "gen_ai.provider.name": PROVIDERS.get(settings.engine, settings.engine),
        "gen_ai.request.model": name,
    }
    if isinstance(settings, OpenAIHttpModel):
        parts = urlsplit(settings.base_url)
        said |= {
            "gen_ai.response.model": settings.model,
            "server.address": parts.hostname or "",
            "server.port": parts.port or PORTS[parts.scheme],
        }
    return said


def of_sampling(sampling: Sampling, settings: Model) -> Attributes:
    """The attributes of how a call is sampled: what the call says, then what the model's settings say,
    then the defaults of our own engines. A value that only the model's makers or another server know
    has no attribute."""
    values = _defaults(sampling, settings) | settings.sampling.said
    for field in SAMPLED:
        if (value := getattr(sampling, field)) is not None:
            values[field] = value
    return {SAMPLED[field]: value for field, value in values.items() if field in SAMPLED}


def _defaults(sampling: Sampling, settings: Model) -> dict[str, Any]:
    if isinstance(settings, OpenAIHttpModel):
        return {}
    advised = "checkpoint" in (sampling.base, settings.sampling.base)
    filled = ("max_tokens",) if advised else ("max_tokens", "temperature")
    return {field: DEFAULTS[field] for field in filled}


def ours(facts: Mapping[str, Value | None]) -> Attributes:
    """Facts under names of our own; a fact that is None is left out."""
    return {f"{PREFIX}{name}": value for name, value in facts.items() if value is not None}
