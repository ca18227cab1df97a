"""Which keys a place in a recipe has, and where a key belongs that stands in the wrong place.

Both are read from the schema as pydantic keeps it (`__pydantic_core_schema__`), so that they cannot
differ from what a recipe is held to.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel

SYNONYMS: Mapping[str, str] = {
    "api_base": "base_url",
    "api_key_var": "api_key_env",
    "context": "context_tokens",
    "context_length": "context_tokens",
    "context_size": "context_tokens",
    "context_window": "context_tokens",
    "ctx": "context_tokens",
    "ctx_size": "context_tokens",
    "endpoint": "base_url",
    "filename": "file",
    "gpu_memory_utilization": "memory_bytes",
    "judge": "aggregator",
    "kv_cache_type_k": "kv_cache_type",
    "lora": "adapters",
    "loras": "adapters",
    "max_completion_tokens": "max_tokens",
    "max_model_len": "context_tokens",
    "max_new_tokens": "max_tokens",
    "max_num_batched_tokens": "batch_tokens",
    "max_num_seqs": "concurrency",
    "max_tokens_to_sample": "max_tokens",
    "n": "samples",
    "n_ctx": "context_tokens",
    "n_gpu_layers": "gpu_layers",
    "n_parallel": "concurrency",
    "n_predict": "max_tokens",
    "n_threads": "threads",
    "ngl": "gpu_layers",
    "num_ctx": "context_tokens",
    "num_gpu": "gpu_layers",
    "num_predict": "max_tokens",
    "num_samples": "samples",
    "num_thread": "threads",
    "parallel": "concurrency",
    "repeat_penalty": "repetition_penalty",
    "repo": "hub",
    "repo_id": "hub",
    "requests_per_second": "requests_per_minute",
    "rpm": "requests_per_minute",
    "stop_sequences": "stop",
    "synthesizer": "aggregator",
    "tensor_parallel_size": "tensor_parallel",
    "thinking_budget": "thinking_tokens",
    "thinking_token_budget": "thinking_tokens",
    "timeout": "deadline_s",
    "timeout_s": "deadline_s",
    "tp": "tensor_parallel",
    "tpm": "tokens_per_minute",
    "url": "base_url",
    "weight": "weights",
}
"""Keys of other programs, or plain words, and the key that means the same here."""
ALIKE = 0.8
"""How alike two keys have to be before one is taken for a misspelt other."""
LONGEST_WORD = 64
"""Longest text for which a similar one is looked for."""


def nearest(word: Any, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The known word that a person most likely meant; None if none is similar.

    Args:
        word: what the person wrote.
        known: the words that are known.
        cutoff: how alike they have to be: 1 for the same letters, 0 for any.
    """
    if not isinstance(word, str) or not 0 < len(word) <= LONGEST_WORD:
        return None
    plain = {_plain(each): each for each in reversed(known)}
    if (exact := plain.get(_plain(word))) is not None:
        return exact
    found = get_close_matches(_plain(word), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def nearest_words(word: str, known: Sequence[str], most: int) -> list[str]:
    """The known words that are most like a word, the most similar first."""
    plain = {_plain(each): each for each in known}
    return [plain[found] for found in get_close_matches(_plain(word)[:LONGEST_WORD], plain, most, 0.5)]


def _plain(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


def hint(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    """What a person may have meant by an unknown key: the start of a sentence, or "" if nothing is
    similar.

    Args:
        model: the class of the whole text.
        loc: pydantic's path to the key; its last step is the key itself.
    """
    key, around = str(loc[-1]), tuple(loc[:-1])
    here = keys_at(model, around)
    meant = SYNONYMS.get(key.casefold(), key)
    if meant in here:
        return f"it is called {meant} here"
    it = "it" if meant == key else meant
    if place := _place(model, meant, around):
        return f"{it} belongs under {place}"
    if close := nearest(key, here, ALIKE):
        return f"did you mean {close}?"
    if place := _place(model, meant, ()):
        return f"{it} belongs under {place}"
    if close := nearest(key, here):
        return f"did you mean {close}?"
    for start in (around, ()):
        names = [path[-1] for path in _paths(model, start)]
        if (close := nearest(key, list(dict.fromkeys(names)))) and (
            place := _place(model, close, start)
        ):
            return f"did you mean {close}, which belongs under {place}?"
    return ""


def keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys that a place has, by pydantic's path to the place."""
    return [name for node in _nodes_at(model, loc) for name in node["fields"]]


def first_sentence(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    """What the setting at a path is, from its docstring; "" if nothing says that."""
    for owner in _owners_at(model, loc[:-1]):
        field = owner.model_fields.get(str(loc[-1]))
        if field is not None and field.description:
            return " ".join(field.description.split(". ")[0].rstrip(".").split())
    return ""


def _place(model: type[BaseModel], key: str, start: tuple[str | int, ...]) -> str | None:
    """The shortest path to where a key belongs below a place; None if the key is not there."""
    places = [path[:-1] for path in _paths(model, start) if path[-1] == key]
    if not places:
        return None
    shortest = min(places, key=len)
    return ".".join(shortest) or "the recipe itself"


@cache
def _paths(model: type[BaseModel], here: tuple[str | int, ...]) -> list[tuple[str, ...]]:
    """The paths of all keys below a place, with NAME and N in place of names and numbers."""
    nodes = _nodes_at(model, here)
    return [path for node in nodes for path in _below(model, node, ())]


def _below(
    model: type[BaseModel], node: Any, path: tuple[str, ...], depth: int = 0
) -> Iterator[tuple[str, ...]]:
    if depth > 8:
        return
    for name, field in node["fields"].items():
        yield (*path, name)
        for steps, inner in _models_in(model, field["schema"], ()):
            yield from _below(model, inner, (*path, name, *steps), depth + 1)


def _models_in(
    model: type[BaseModel], node: Any, steps: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for each in _unwrapped(model, node):
        match each["type"]:
            case "model-fields":
                yield steps, each
            case "dict" if "values_schema" in each:
                yield from _models_in(model, each["values_schema"], (*steps, "NAME"))
            case "list" | "tuple" if each.get("items_schema"):
                for item in _items(each):
                    yield from _models_in(model, item, (*steps, "N"))
            case "tagged-union":
                for choice in each["choices"].values():
                    yield from _models_in(model, choice, steps)


def _nodes_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[Any]:
    """The `model-fields` nodes at a path."""
    return [node for node in _at(model, loc) if node["type"] == "model-fields"]


def _owners_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[type[BaseModel]]:
    found = []
    for node in _at(model, loc, stop_at_models=True):
        if node["type"] == "model":
            found.append(node["cls"])
    return found


def _at(model: type[BaseModel], loc: Sequence[str | int], *, stop_at_models: bool = False) -> list[Any]:
    nodes = list(_unwrapped(model, model.__pydantic_core_schema__, stop_at_models=stop_at_models))
    for step in loc:
        inner = [child for node in nodes for child in _children(model, node, step)]
        nodes = [each for n in inner for each in _unwrapped(model, n, stop_at_models=stop_at_models)]
    return nodes


def _children(model: type[BaseModel], node: Any, step: str | int) -> Iterator[Any]:
    match node["type"]:
        case "model":
            yield from _children(model, next(_unwrapped(model, node)), step)
        case "model-fields":
            if step in node["fields"]:
                yield node["fields"][step]["schema"]
        case "dict" if "values_schema" in node:
            yield node["values_schema"]
        case "list" | "tuple" if isinstance(step, int):
            yield from _items(node)
        case "tagged-union":
            if step in node["choices"]:
                yield node["choices"][step]
            else:  # a path without tags
                for choice in node["choices"].values():
                    for each in _unwrapped(model, choice):
                        yield from _children(model, each, step)


def _items(node: Any) -> list[Any]:
    items = node.get("items_schema", ())
    return items if isinstance(items, list) else [items]


def _unwrapped(model: type[BaseModel], node: Any, *, stop_at_models: bool = False) -> Iterator[Any]:
    """The nodes that validate the value, without defaults, functions and references around them."""
    match node["type"]:
        case "definition-ref":
            yield from _unwrapped(
                model, _definitions(model)[node["schema_ref"]], stop_at_models=stop_at_models
            )
        case "union":
            for choice in node["choices"]:
                inner = choice[0] if isinstance(choice, tuple) else choice
                yield from _unwrapped(model, inner, stop_at_models=stop_at_models)
        case "chain":
            for inner in node["steps"]:
                yield from _unwrapped(model, inner, stop_at_models=stop_at_models)
        case "model" if stop_at_models:
            yield node
        case "model" | "default" | "nullable" | "definitions" | "model-field":
            yield from _unwrapped(model, node["schema"], stop_at_models=stop_at_models)
        case "function-after" | "function-before" | "function-wrap":
            yield from _unwrapped(model, node["schema"], stop_at_models=stop_at_models)
        case _:
            yield node


@cache
def _definitions(model: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting: list[Any] = [model.__pydantic_core_schema__]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "ref" in node:
                found[node["ref"]] = node
            waiting += [v for k, v in node.items() if k not in ("metadata", "serialization")]
        elif isinstance(node, list | tuple):
            waiting += node
    return found
