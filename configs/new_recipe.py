"""The text of a new recipe, with comments, from models and a few choices. Pure.

`slimmoa new` writes it. Its settings follow the recipes of the package: short answers on a CPU, longer
ones on a GPU, and no thinking where the chat template has a switch for it.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

DROPPED = re.compile(
    r"(?i)[-_.](?:gguf|awq|gptq|fp8|fp16|bf16|i?q\d\w*|w\d+a\d+|int\d|4bit|8bit|instruct|it|chat|hf|qat|ct)$"
)
"""Ends of the names of repositories and files that tell a format and not a model."""
SWITCHES = ("enable_thinking", "thinking")
"""Arguments of chat templates that turn thinking off."""
GPU_ANSWER, CPU_ANSWER = 1024, 256
"""Most tokens of a proposal. The aggregator's answer has twice as many."""
THOUGHT = 512
"""Most tokens of a thought of a model that cannot do without."""
QUESTION = 2048
"""Tokens for the conversation and the instructions in every context, on a GPU."""
CPU_QUESTION = 1024
CONTEXT_STEP = 1024


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model of a new recipe."""

    name: str
    engine: str
    """`vllm` or `llamacpp`."""
    source: dict[str, Any]
    """Its source of weights, as a recipe has it."""
    comment: str
    """A few words about it."""
    template: dict[str, Any]
    """Arguments of its chat template, against thinking."""
    most_tokens: int
    """The longest context that it was made for; 0 if unknown."""
    samples: int
    """How many proposals it gives; 0 if it only aggregates."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen for a new recipe as a whole."""

    name: str
    aggregator: str
    """Name of the model that aggregates."""
    gpu: bool
    """Whether it is for GPUs."""
    concurrency: int
    """Questions at a time."""
    deadline_s: int
    header: tuple[str, ...] = ()
    """Lines of the comment at the top."""


def model_name(label: str, taken: Collection[str]) -> str:
    """A short name for a model, that no other model of the recipe has.

    Args:
        label: name of its repository, folder or file.
        taken: the names of the other models.
    """
    short = label
    while (shorter := DROPPED.sub("", short)) != short and shorter:
        short = shorter
    short = re.sub(r"[^a-z0-9._-]+", "-", short.casefold()).strip("-._")[:56] or "model"
    name, number = short, 2
    while name in taken:
        name, number = f"{short}-{number}", number + 1
    return name


def against_thinking(template: str) -> dict[str, Any]:
    """Arguments of a chat template with which its model does not think, or thinks little. Empty if the
    template knows none."""
    for switch in SWITCHES:
        if re.search(rf"\b{switch}\b", "".join(re.findall(r"\{[%{].*?[%}]\}", template, re.DOTALL))):
            return {switch: False}
    return {"reasoning_effort": "low"} if "reasoning_effort" in template else {}


def recipe_text(models: Sequence[NewModel], choices: Choices) -> str:
    """The YAML text of the recipe."""
    lines = [f"# {line}".rstrip() for line in choices.header]
    lines += [_with_comment(f"name: {choices.name}", "its model name in the API"), "", "models:"]
    for number, model in enumerate(models):
        lines += _model(model, models, choices, first=number == 0)
    lines += ["", "layers:", _with_comment("  - proposers:", "the most trusted first")]
    lines += [
        _proposer(model, context_tokens(model, models, choices), choices)
        for model in models
        if model.samples
    ]
    (writer,) = (model for model in models if model.name == choices.aggregator)
    fallbacks = [model.name for model in models if model.samples and model is not writer]
    lines += ["", "aggregator:"]
    lines += [_with_comment(f"  model: {writer.name}", "reads the proposals and writes the answer")]
    writers = [writer, *(model for model in models if model.name in fallbacks[:1])]
    shortest = min(context_tokens(model, models, choices) for model in writers)
    lines += [f"  sampling: {_sampling(0.5, min(2 * _answer(choices), shortest // 2), writer)}"]
    if fallbacks:
        lines += [_with_comment(f"  fallbacks: [{fallbacks[0]}]", "writes if the aggregator fails")]
    return "\n".join([*lines, "", *_limits(choices)]) + "\n"


def _limits(choices: Choices) -> list[str]:
    return [
        "limits:",
        _with_comment(f"  deadline_s: {choices.deadline_s}", "one whole answer"),
        _with_comment(f"  layer_deadline_s: {choices.deadline_s * 3 // 5}", "all proposals"),
        _with_comment("  quorum: 1", "fewest proposals to go on with"),
        _with_comment(f"  grace_s: {choices.deadline_s // 5}", "time for the others after that"),
    ]


def _model(model: NewModel, models: Sequence[NewModel], choices: Choices, *, first: bool) -> list[str]:
    lines = [_with_comment(f"  {model.name}:", model.comment), f"    engine: {model.engine}"]
    lines += ["    weights:"]
    for number, (key, value) in enumerate(model.source.items()):
        lines.append(f"      {'-' if number == 0 else ' '} {key}: {_flow(value)}")
    if model.template:
        why = "it thinks little" if _must_think(model) else "no thinking: proposals come sooner"
        lines.append(_with_comment(f"    template: {_flow(model.template)}", why))
    context = context_tokens(model, models, choices)
    about = ("prompt and answer together", "questions at a time") if first else ("", "")
    concurrency = choices.concurrency * max(1, model.samples)
    lines.append(_with_comment(f"    context_tokens: {context}", about[0]))
    lines.append(
        _with_comment(
            f"    concurrency: {concurrency}",
            about[1] if concurrency == 1 else "calls at a time" if first else "",
        )
    )
    if model.engine == "vllm":
        tokens = context * max(1, -(-concurrency // 2))
        lines.append(
            _with_comment(f"    kv_tokens: {tokens}", "for all calls together" if first else "")
        )
    elif not choices.gpu:
        lines.append("    prefill_tokens: 128")
    return lines


def context_tokens(model: NewModel, models: Sequence[NewModel], choices: Choices) -> int:
    """Tokens of a model's context: its longest prompt and answer, but no more than it was made for."""
    question, answer = (QUESTION if choices.gpu else CPU_QUESTION), _answer(choices)
    needed = question + answer
    if choices.aggregator == model.name or model.samples:  # a fallback reads the references too
        needed = question + sum(each.samples for each in models) * answer + 2 * answer
    needed += THOUGHT if _must_think(model) else 0
    rounded = -(-needed // CONTEXT_STEP) * CONTEXT_STEP
    return min(rounded, model.most_tokens or rounded)


def _answer(choices: Choices) -> int:
    return GPU_ANSWER if choices.gpu else CPU_ANSWER


def _proposer(model: NewModel, context: int, choices: Choices) -> str:
    samples = f"samples: {model.samples}, " if model.samples > 1 else ""
    sampling = _sampling(0.7, min(_answer(choices), context // 2), model)
    return f"      - {{model: {model.name}, {samples}sampling: {sampling}}}"


def _sampling(temperature: float, tokens: int, model: NewModel) -> str:
    thought = f", thinking_tokens: {THOUGHT}" if _must_think(model) else ""
    return f"{{temperature: {temperature}, max_tokens: {tokens}{thought}}}"


def _must_think(model: NewModel) -> bool:
    return "reasoning_effort" in model.template


def _with_comment(text: str, comment: str) -> str:
    return f"{text:<36}  # {comment}" if comment else text


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=100_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
