"""How the answer to a request is sampled: as the recipe says, changed by what the request asks for.

The parameters that only some engines know (ExtraParameters) depend on the engine of the model that
answers:

1. If the engine takes a parameter, the parameter is honoured. But a JSON schema to which llama.cpp
   cannot hold an answer (`configs/held_schemas.py`) is refused, or shortened if it is not strict.
2. If the engine does not take a parameter, CONSTRAINTS are refused, and so are tools of which the model
   has to call one: without them the answer would be another one than was asked for.
3. All other parameters that the engine does not take are left out, and `moa.ignored` names them.
"""

from typing import Any

from pydantic import BaseModel, ValidationError

from configs.base import template_problem
from configs.errors import BadRequest
from configs.extra_parameters import CONSTRAINTS, ExtraParameters, can_honour
from configs.held_schemas import held, unheld_part
from configs.schema import Recipe, Sampling
from serve_app.access.api_keys import Key
from serve_app.http.json_body import bad_request
from serve_app.http.parameters import UNSUPPORTED, unsupported
from serve_app.http.request import EMPTY, ChatRequest

EFFORT_ARGUMENTS = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
"""Arguments of chat templates that `reasoning_effort` sets."""
OFF: dict[str, Any] = {
    "min_tokens": 0,
    "ignore_eos": False,
    "include_stop_str_in_output": False,
    "typical_p": 1,
    "top_n_sigma": -1,
    "xtc_probability": 0,
    "dynatemp_range": 0,
    "dry_multiplier": 0,
    "mirostat": 0,
}
"""Values of ExtraParameters that change nothing, so that `moa.ignored` need not name them."""


def asked_sampling(request: ChatRequest, recipe: Recipe, key: Key) -> Sampling:
    """The sampling of the answer: the request's, within the allowance of the key.

    The recipe's sampling of the aggregator counts for the mixture, and for the aggregator's model where
    the model answers in place of the mixture.

    Raises:
        BadRequest: the request asks for more tokens than the key may ask for, or than the model that
            answers holds, or a sampling parameter is outside of what a recipe allows.
    """
    aggregator = recipe.aggregator
    model = aggregator.model if request.answers == recipe.name else request.answers
    is_aggregator = request.model == recipe.name and model == aggregator.model
    base = aggregator.sampling if is_aggregator else Sampling()
    limit = key.allowance.max_tokens
    if limit is not None:
        base = base.model_copy(update={"max_tokens": min(base.answer_tokens, limit)})
    sampling = change_sampling(base, request, recipe.settings(model).engine)
    if limit is not None and sampling.answer_tokens > limit:
        message = (
            f"max_tokens is {sampling.answer_tokens}; key {key.name!r} may ask for {limit} at most"
        )
        raise BadRequest(message, param="max_tokens")
    if limit is not None and request.thinking_token_budget is not None and sampling.most_tokens > limit:
        message = (
            f"max_tokens and thinking_token_budget are {sampling.most_tokens} together; key "
            f"{key.name!r} may ask for {limit} at most"
        )
        raise BadRequest(message, param="thinking_token_budget")
    context = recipe.settings(model).context_tokens
    if (param := request.limit_param) is not None and sampling.most_tokens >= context:
        # In OpenAI's words, and not in those of an overflow: no shorter conversation would help.
        message = (
            f"{param} is too large: {sampling.most_tokens}. This model supports at most "
            f"{context - 1} completion tokens, because model {model!r} holds {context} tokens"
        )
        raise BadRequest(message, param=param, model=model)
    return sampling


def change_sampling(base: Sampling, request: ChatRequest, engine: str | None = None) -> Sampling:
    """`base`, changed by the sampling parameters of a request.

    Args:
        base: what the recipe says.
        request: the request. What the engine does not take is noted as ignored there.
        engine: the engine of the model that answers; None if any may do so.

    Raises:
        BadRequest: a parameter is outside of what a recipe allows, or the engine cannot do what the
            request needs (cases 1 and 2 of the file's docstring).
    """
    requested: dict[str, Any] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "stop": (request.stop,) if isinstance(request.stop, str) else request.stop,
        "seed": request.seed,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "top_logprobs": (request.top_logprobs or 0) if request.logprobs else None,
        "reasoning_effort": request.reasoning_effort,
        "thinking_tokens": request.thinking_token_budget,
    }
    requested["template"] = _template(base.template, request, engine)
    requested["extra"] = base.extra | _extra(request, engine)
    merged = base.model_dump() | {k: v for k, v in requested.items() if v is not None}
    try:
        return Sampling.model_validate(merged)
    except ValidationError as error:
        raise bad_request(error, request.sent) from error


def _extra(request: ChatRequest, engine: str | None) -> dict[str, Any]:
    """The ExtraParameters that the engine takes. The others are noted as ignored. The numbers are those
    of the file's docstring.

    Raises:
        BadRequest: the engine does not take one of CONSTRAINTS, or cannot hold the model to it.
    """
    given = {name: getattr(request, name) for name in ExtraParameters.model_fields}
    if given["min_tokens"] and request.max_tokens and given["min_tokens"] > request.max_tokens:
        message = f"min_tokens is {given['min_tokens']}, more than max_tokens ({request.max_tokens})"
        raise BadRequest(message, param=request.sent.get("min_tokens", "min_tokens"))
    taken: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        plain = value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
        sent = request.sent.get(name, name)
        if engine is None or can_honour(engine, name, plain):  # 1
            is_held = name == "structure" and engine == "llamacpp"
            taken[name] = _held(request, plain, sent) if is_held else plain
        elif name == "tool_use":  # 2, 3
            _leave_out_tools(request, engine)
        elif name in CONSTRAINTS:  # 2
            harmless = UNSUPPORTED.get(sent, EMPTY[name])
            raise unsupported(sent, harmless, f" (the engine {engine!r} cannot do it)")
        elif sent not in request.ignored and value != OFF.get(name):  # 3
            request.note_ignored([sent])
    return taken


def _held(request: ChatRequest, structure: dict[str, Any], sent: str) -> dict[str, Any]:
    """The form of the answer as llama.cpp can hold an answer to it. If the request does not insist on
    the whole schema, the parts that llama.cpp cannot hold are left out, and the schema is noted as
    ignored.

    Raises:
        BadRequest: llama.cpp cannot hold an answer to a part, and the request wants the whole form.
    """
    why = unheld_part(structure)
    if why is None:
        return structure
    if structure.get("strict") is not False:
        raise BadRequest(f"{sent!r}: {why}", param=sent)
    schema = held(structure["json_schema"], leniently=True)
    if f"{sent}.schema" not in request.ignored:
        request.note_ignored([f"{sent}.schema"])
    return structure | {"json_schema": schema}


def _leave_out_tools(request: ChatRequest, engine: str) -> None:
    """Note that an engine cannot have its model call tools.

    Raises:
        BadRequest: the model would have to call one.
    """
    sent = request.sent.get("tool_use", "tools")
    if _must_call(request):
        param = "function_call" if request.older_calls else "tool_choice"
        why = f" (the engine {engine!r} cannot have its model call tools)"
        raise unsupported(param, ("none", "auto"), why)
    if sent not in request.ignored:
        request.note_ignored([sent], first=True)


def _must_call(request: ChatRequest) -> bool:
    """Whether the model that answers has to call a tool."""
    return request.tool_use is not None and request.tool_use.choice == "required"


def _template(base: dict[str, Any], request: ChatRequest, engine: str | None) -> dict[str, Any]:
    """`base`, changed by the arguments of the chat template that the request gives.

    Raises:
        BadRequest: an argument is not allowed.
    """
    has_form = request.structure is not None or _must_call(request)
    if request.reasoning_effort is not None:  # the request goes before the recipe
        base = {name: value for name, value in base.items() if name not in EFFORT_ARGUMENTS}
    elif (has_form or request.routed) and engine in ("llamacpp", "vllm"):
        # A thought has another form than the answer, and a short task needs none.
        base = base | {"enable_thinking": False, "thinking": False}
    given = request.chat_template_kwargs or {}
    if (problem := template_problem(given)) is not None:
        raise BadRequest(f"chat_template_kwargs: {problem}", param="chat_template_kwargs")
    return base | given
