"""Hashes of everything that determines the output of a call, a model or a generator.

The key of a call covers everything that an engine is given. What built the prompt (the recipe's prompt
text, the code that inserts references) counts through the messages that resulted. Settings that only
change how fast or where a model runs (threads, concurrency, residency, context) do not count.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engine import Message
from configs.sampling import DEFAULTS
from configs.schema import (
    Aggregator,
    LlamaCppModel,
    Model,
    ModelSampling,
    OpenAIHttpModel,
    Proposer,
    Recipe,
    Sampling,
    ScriptedModel,
    VllmModel,
)
from configs.weights import FolderSource, LocalFile, LocalFolder, WeightsSource
from jobs.records import Generator
from jobs.variants import Variant, sampling_alone

KEY_BYTES = 16
"""Length of a call's key."""

QUESTION_BYTES = 4
"""Length of the part of a key that depends on the user's first message alone."""

VLLM_SETTINGS = ("quantization", "dtype", "kv_cache_dtype", "load_format")
"""Settings of a vLLM model that change its output."""

CHAT_SETTINGS: dict[str, Any] = {
    "template": {},
    "reasoning_format": "auto",
    "thinking_limit": None,
    "control_tokens": None,
    "extra_body": {},
    "omit": (),
}
"""Settings of every model with a chat template that change its output, with their defaults."""

LATER = (
    "base",
    "top_k",
    "min_p",
    "repetition_penalty",
    "thinking_tokens",
    "reasoning_effort",
    "template",
    "extra",
)
"""Settings of `Sampling` that were added after runs had been stored."""

LATER_PARTS = {"exit": None, "first": None}
"""Parts of a recipe that were added after runs had been stored, with their defaults."""
LATER_OF_AGGREGATOR = {"method": "merge", "margin": 0.15, "answer": None, "guard": False}
"""The same of the aggregator."""

SCRIPT_SETTINGS = ("text", "tokens")
"""Settings of a scripted model that change its output."""


def call_key(
    model: str,
    identity: str,
    messages: Sequence[Message],
    sampling: Sampling,
    *,
    own_defaults: bool = False,
) -> bytes:
    """The key of an engine call: KEY_BYTES bytes.

    A key begins with a hash of the user's first message alone. So the calls of one row lie side by side
    in the store's index, and storing them changes one page of the index instead of several.

    Args:
        model: the model's name in the recipe.
        identity: the model's identity (`model_identity`).
        messages: the whole prompt.
        sampling: all settings, the seed included.
        own_defaults: whether the model decides what the sampling leaves out (`has_own_defaults`).
    """
    contents = [[message["role"], message["content"]] for message in messages]
    question = next((content for role, content in contents if role == "user"), "")
    whole = [model, identity, contents, _settings(sampling, own_defaults=own_defaults)]
    return (_hash(question).digest()[:QUESTION_BYTES] + _hash(whole).digest())[:KEY_BYTES]


def model_identity(model: Model) -> str:
    """Hash of a model's weights and of the settings that change its output.

    If a source of a file of weights gives a checksum, the checksum stands for the weights. Otherwise
    the first source counts: a Hub repository by its name and revision, which are trusted, and a local
    file or folder by names, sizes and times of change. Local weights must exist when this function is
    called. A model on a server counts by the server's address and the model's name.
    """
    match model:
        case LlamaCppModel():
            content: Any = _file_content(model.weights)
            if (kv := model.model_dump(mode="json")["kv_cache_type"]) != "f16":
                content = [content, {"kv_cache_type": kv}]
        case VllmModel():
            settings = {name: getattr(model, name) for name in VLLM_SETTINGS}
            settings["reasoning_parser"] = None  # a setting of older runs, which keep their identity
            content = [_folder_content(model.weights), settings]
        case OpenAIHttpModel():
            content = [model.base_url, model.model]
        case ScriptedModel():
            content = {name: getattr(model, name) for name in SCRIPT_SETTINGS}
    chat = {
        n: getattr(model, n) for n, usual in CHAT_SETTINGS.items() if getattr(model, n, usual) != usual
    }
    if model.sampling != ModelSampling():
        chat["sampling"] = model.sampling.model_dump(mode="json", exclude_defaults=True)
    return short_hash([model.engine, content, *([chat] if chat else [])])


def adapter_identity(model: VllmModel, name: str) -> str:
    """Hash of what determines the output of an adapter over a model: the model, the adapter's weights,
    and its arguments of the chat template."""
    weights = _folder_content(model.adapters[name].weights)
    return short_hash([model_identity(model.as_adapter(name)), weights])


def recipe_identities(recipe: Recipe) -> dict[str, str]:
    """The identity of every model and adapter of a recipe, by its name."""
    found = {name: model_identity(model) for name, model in recipe.models.items()}
    for name, host in recipe.adapters.items():
        model = recipe.models[host]
        assert isinstance(model, VllmModel)
        found[name] = adapter_identity(model, name)
    return found


def has_own_defaults(model: Model) -> bool:
    """Whether something else than DEFAULTS holds where a call's sampling says nothing: a server's own
    defaults, or the sampling of the model itself."""
    return isinstance(model, OpenAIHttpModel) or model.sampling != ModelSampling()


def to_generator(
    variant: Variant, identities: Mapping[str, str], seed: int, *, row_temperatures: bool = False
) -> Generator:
    """A variant as a generator of a store, with a hash of everything that determines its answers.

    Limits, cards and description of the recipe do not count: they change how a run goes, not what the
    models are asked.

    Args:
        variant: a mixture, or one model alone.
        identities: the identities (`model_identity`) of the recipe's models, by name of the model.
        seed: the run's seed.
        row_temperatures: whether rows of the set have temperatures of their own, which take the place
            of the recipe's.
    """
    recipe = variant.recipe
    tempered = ["row temperatures"] if row_temperatures else []
    about = recipe.model_dump(mode="json", exclude_defaults=True)
    if variant.model is None:
        used = {name: identities[name] for name in sorted(variant.models)}
        identity = short_hash([_asked(recipe), used, seed, *tempered])
        return Generator(variant.name, "mixture", identity, {"recipe": about})
    own_defaults = has_own_defaults(recipe.settings(variant.model))
    sampling = _settings(sampling_alone(recipe, variant.model), own_defaults=own_defaults)
    identity = short_hash([variant.model, identities[variant.model], sampling, seed, *tempered])
    return Generator(
        variant.name, "model", identity, {"model": about["models"][recipe.host(variant.model)]}
    )


def _asked(recipe: Recipe) -> dict[str, Any]:
    """What a mixture asks its models for, as a JSON value."""
    asked = recipe.model_dump(
        mode="json", include={"layers", "aggregator", "references", "exit", "first"}
    )
    _leave_out_usual(asked)
    parts = [proposer for layer in asked["layers"] for proposer in layer["proposers"]]
    whole: list[Proposer | Aggregator] = [*recipe.proposers(), recipe.aggregator]
    for part, of in zip([*parts, asked["aggregator"]], whole, strict=True):
        own_defaults = has_own_defaults(recipe.settings(of.model))
        part["sampling"] = _settings(of.sampling, own_defaults=own_defaults)
    return asked


def _leave_out_usual(asked: dict[str, Any]) -> None:
    """Leave out the settings of methods that change nothing, so that older runs keep their identity."""
    for of, settings in ((asked, LATER_PARTS), (asked["aggregator"], LATER_OF_AGGREGATOR)):
        for name, usual in settings.items():
            if of[name] == usual:
                del of[name]
    for layer in asked["layers"]:
        if layer["see"] is None:
            del layer["see"]
    if asked.get("first"):
        del asked["first"]["calibrated_on"]  # for people


def short_hash(value: Any) -> str:
    """Hash of a JSON value that people can compare: 32 hexadecimal digits."""
    return _hash(value).hexdigest()[:32]


def _settings(sampling: Sampling, *, own_defaults: bool = False) -> dict[str, Any]:
    """The sampling as a JSON value.

    The calls that older runs have stored keep their keys: an unsaid value counts as the default that
    the engine takes, and settings that LATER names count only where they change something.
    """
    settings = sampling.model_dump(mode="json")
    own_defaults = own_defaults or sampling.base is not None
    usual = {"template": {}, "extra": {}} | ({} if own_defaults else DEFAULTS)
    said = {n: usual.get(n) if value is None else value for n, value in settings.items()}
    return {n: v for n, v in said.items() if n not in LATER or v not in (None, usual.get(n))}


def _hash(value: Any) -> "hashlib._Hash":
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass"))


def _file_content(sources: Sequence[WeightsSource]) -> Any:
    for source in sources:
        sums = [piece.sha256 for piece in source.pieces]
        if None not in sums:
            return sums if len(sums) > 1 else sums[0]
    source = sources[0]
    if isinstance(source, LocalFile):
        states = [_file_state(Path(piece.path)) for piece in source.pieces]
        return states if len(states) > 1 else states[0]
    return source.model_dump(mode="json", exclude={"part_sha256"})


def _folder_content(sources: Sequence[FolderSource]) -> Any:
    source = sources[0]
    if isinstance(source, LocalFolder):
        return [_file_state(file) for file in sorted(Path(source.path).glob("*"))]
    return source.model_dump(mode="json")


def _file_state(file: Path) -> Mapping[str, Any]:
    """Name, size and time of change of a file. Hashing 40 GB would take a minute at each start."""
    if not file.is_file():
        return {"name": file.name}
    stat = file.stat()
    return {"name": file.name, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
