"""What is said about a value that a schema refuses, in words for people who write YAML.

Pydantic finds the mistakes and says them in Python's words ("Input should be a valid tuple"). Here each
of its kinds of mistakes has a sentence of our own: what has to stand there, what stands there, and what
may have been meant. Mistakes that our own checks find have their sentences already.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from configs.base import MEANINGS, NO_KEYS
from configs.known_keys import first_sentence, hint, nearest
from configs.problem import Problem, Where
from configs.shown import shown

SECRET = re.compile(r"api.?key|secret|password|authorization|^(auth.?|access.?)?token$", re.IGNORECASE)
"""Unknown keys that look as if their value were an API key."""
LIST, MAPPING = "a list (lines that begin with `- `)", "a mapping (lines of `key: value`)"
TEXT, WHOLE, NUMBER = "text", "a whole number", "a number"
KINDS: Mapping[str, str] = {
    "string_type": TEXT,
    "string_unicode": "text in UTF-8",
    "int_type": WHOLE,
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "bool_type": "true or false",
    "tuple_type": LIST,
    "list_type": LIST,
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "mapping_type": MAPPING,
    "finite_number": "a number other than .inf and .nan",
}
"""What has to stand there, by the kind of mistake."""
BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
"""The bound of a number, and its word, by the kind of mistake."""
Item = Mapping[str, Any]
"""One mistake as pydantic describes it (`ErrorDetails`)."""


def problems(
    error: ValidationError,
    model: type[BaseModel],
    *,
    never_quoted: frozenset[str] = frozenset(),
    quotes: bool = True,
) -> list[Problem]:
    """The mistakes that pydantic found, each at its place in the text and in our words.

    Args:
        error: pydantic's error.
        model: the class that the text was read as.
        never_quoted: keys whose values no message repeats.
        quotes: whether messages repeat any value at all.
    """
    found: dict[Where, list[Item]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and item["input"]:
            continue  # pydantic counts only the valid items; the invalid items have their own errors
        found.setdefault(_where(item), []).append(item)
    return [
        Problem(where, _sentence(items, model, quotes=quotes and never_quoted.isdisjoint(where)))
        for where, items in found.items()
    ]


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake in one line, with its place."""
    return str(problems(error, model)[0])


def _sentence(items: Sequence[Item], model: type[BaseModel], *, quotes: bool) -> str:
    item = items[0]
    kinds = list(dict.fromkeys(KINDS[each["type"]] for each in items if each["type"] in KINDS))
    say = SENTENCES.get(item["type"])
    if len(items) > 1 and kinds:  # a union: each of its members has refused the value
        message = f"this has to be {' or '.join(filter(None, [', '.join(kinds[:-1]), kinds[-1]]))}"
    else:
        message = _own(item) if say is None else say(item, model)
    # Sentences of our own checks have the value already, unless they say what "this" has to be.
    if item["type"] in UNQUOTED or not quotes or not message.startswith("this "):
        return message
    if item["input"] is None:
        return f"{message}, but it has no value"
    if len(kinds) == 1 and (form := _other_form(kinds[0], item["input"])):
        return f"{message}, not {form}"
    return f"{message}, not {shown(item['input'])}{_advice(item)}"


def _other_form(kind: str, value: Any) -> str:
    """What to change where a list stands for a mapping, or a mapping for a list; else ""."""
    if kind == LIST and isinstance(value, dict) and value:
        return f"a mapping; write `- ` before its first key, {shown(next(iter(value)))}"
    if kind == MAPPING and isinstance(value, list) and value and isinstance(value[0], dict):
        return "a list; leave out the `- ` before its keys"
    return ""


def _own(item: Item) -> str:
    """A sentence of our own checks; it stands in the error as it is."""
    return item["msg"] if item["type"] == "secret" else f"{item['msg'][:1].lower()}{item['msg'][1:]}"


def _kind(item: Item, _model: type[BaseModel]) -> str:
    return f"this has to be {KINDS[item['type']]}"


def _bound(item: Item, _model: type[BaseModel]) -> str:
    name, word = BOUNDS[item["type"]]
    return f"this has to be {word} {item['ctx'][name]:g}"


def _pattern(item: Item, _model: type[BaseModel]) -> str:
    return f"this has to be {MEANINGS[item['ctx']['pattern']]}"


def _choice(item: Item, _model: type[BaseModel]) -> str:
    known = re.findall(r"'([^']*)'|(-?\d+)", item["ctx"]["expected"])
    words = [text or number for text, number in known]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    close = nearest(item["input"], words)
    meant = f" (did you mean {close}?)" if close else ""
    return f"this has to be {listed}{meant}"


def _unknown_key(item: Item, model: type[BaseModel]) -> str:
    if SECRET.search(str(item["loc"][-1])):
        return NO_KEYS
    meant = hint(model, item["loc"])
    return f"this key is not known here{f'; {meant}' if meant else ''}"


def _missing(item: Item, model: type[BaseModel]) -> str:
    what = first_sentence(model, item["loc"])
    return f"this key is required{f': {what[0].lower()}{what[1:]}' if what else ''}"


def _no_engine(_item: Item, _model: type[BaseModel]) -> str:
    return "the key 'engine' is required: llamacpp, vllm, openai_http or scripted"


def _bad_engine(item: Item, _model: type[BaseModel]) -> str:
    known = re.findall(r"'([^']*)'", item["ctx"]["expected_tags"])
    tag = item["input"].get("engine") if isinstance(item["input"], dict) else item["ctx"]["tag"]
    close = ENGINES.get(re.sub(r"[^a-z]", "", str(tag).casefold())) or nearest(tag, known)
    meant = f"; did you mean {close}?" if close else ""
    return f"{shown(tag)} is not an engine; there are {', '.join(known)}{meant}"


def _empty(item: Item, _model: type[BaseModel]) -> str:
    return "at least one is needed here" if item["ctx"]["min_length"] == 1 else _fewest(item, _model)


def _fewest(item: Item, _model: type[BaseModel]) -> str:
    return f"at least {item['ctx']['min_length']} are needed here"


def _most(item: Item, _model: type[BaseModel]) -> str:
    return f"at most {item['ctx']['max_length']} are allowed here"


def _no_text(item: Item, _model: type[BaseModel]) -> str:
    least = item["ctx"]["min_length"]
    return "this must not be empty" if least == 1 else f"this needs at least {least} characters"


def _long_text(item: Item, _model: type[BaseModel]) -> str:
    return f"this may have at most {item['ctx']['max_length']} characters"


def _tuple_length(_item: Item, _model: type[BaseModel]) -> str:
    return "this list has too many or too few items"


SENTENCES: Mapping[str, Callable[[Item, type[BaseModel]], str]] = {
    **dict.fromkeys(KINDS, _kind),
    **dict.fromkeys(BOUNDS, _bound),
    "string_pattern_mismatch": _pattern,
    "literal_error": _choice,
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_not_found": _no_engine,
    "union_tag_invalid": _bad_engine,
    "too_short": _empty,
    "too_long": _most,
    "string_too_short": _no_text,
    "string_too_long": _long_text,
}
"""A sentence for each kind of mistake that pydantic may find in a recipe."""
UNQUOTED = frozenset(
    {
        "extra_forbidden",
        "missing",
        "secret",
        "too_long",
        "too_short",
        "union_tag_invalid",
        "union_tag_not_found",
    }
)
"""Kinds of mistakes after which the value is not shown."""
ENGINES = {
    "gguf": "llamacpp",
    "llama": "llamacpp",
    "llamacpppython": "llamacpp",
    "ollama": "openai_http",
    "openai": "openai_http",
    "api": "openai_http",
    "http": "openai_http",
    "transformers": "vllm",
    "hf": "vllm",
}
"""Names that people give to engines, and the engine that takes their models."""


def _advice(item: Item) -> str:
    """What to write, where it is plain what a person meant; else ""."""
    value, kind = item["input"], item["type"]
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f" (quotes make it text: '{shown(value)}')"
    if not isinstance(value, str):
        return ""
    if kind in ("int_type", "float_type"):
        meant = _number(value)
        return f" (write {meant})" if meant and (kind == "float_type" or "." not in meant) else ""
    if kind == "bool_type" and value.casefold() in SWITCHES:
        return f" (write {SWITCHES[value.casefold()]}, without quotes)"
    if kind in ("tuple_type", "list_type") and 0 < len(value) < 40:
        is_file = item["loc"][-1] in ("weights", "draft")
        return f" (write [{{path: {value}}}])" if is_file else f" (write [{value}])"
    if kind == "string_pattern_mismatch" and len(value) < 200:
        if found := HUB_ADDRESS.search(value):
            return f" (write {found[1]})" if "owner/name" in MEANINGS[item["ctx"]["pattern"]] else ""
        plain = re.sub(r"[^A-Za-z0-9._/:-]+", "-", value).strip("-./:")
        is_name = plain and "/ and : may join" in MEANINGS[item["ctx"]["pattern"]]
        return f" (write {plain})" if is_name else ""
    return ""


def _number(text: str) -> str:
    """The number that a text means, such as 8192 for `8k` and `8,192`; "" if it means none."""
    plain = re.sub(r"(?<=\d)[,_ ](?=\d{3}\b)", "", text.strip())
    if found := re.fullmatch(r"(\d+)([kKmM])", plain):
        return str(int(found[1]) * (1024 if found[2] in "kK" else 1_048_576))
    return plain if re.fullmatch(r"-?\d+(\.\d+)?", plain) else ""


SWITCHES = {
    "yes": "true",
    "no": "false",
    "on": "true",
    "off": "false",
    "true": "true",
    "false": "false",
}
"""Words that mean true or false."""
HUB_ADDRESS = re.compile(r"(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")
"""The address of a repository of the Hub."""


TAGS = frozenset({"str", "bool", "int", "float", "list[any]", "dict[str,any]"})
"""How pydantic names the kinds of values of `template` in an error's path."""


def _where(item: Item) -> Where:
    """The path in the YAML text for a location that pydantic gives.

    Pydantic adds the chosen member of a union, and a mark for keys:
    models, NAME, engine, weights, 0, kind of source, key -> models, NAME, weights, 0, key
    """
    loc = tuple(item["loc"])
    if loc[:1] == ("models",):
        loc = (*loc[:2], *loc[3:])
        kind = next((n + 1 for n, key in enumerate(loc) if isinstance(key, int)), len(loc))
        loc = (*loc[:kind], *loc[kind + 1 :])
    if "template" in loc[:-1] and loc[-1] in TAGS:
        loc = loc[:-1]
    # pydantic adds keys in brackets that no recipe has: `[key]` of a mapping, or the kind of a union.
    where = tuple(key for key in loc if not (isinstance(key, str) and re.fullmatch(r"\[[a-z]+\]", key)))
    return (*where, "engine") if item["type"] == "union_tag_invalid" else where
