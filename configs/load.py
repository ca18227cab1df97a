"""A YAML file -> a Recipe that needs no other file: prompts are read in, paths are made absolute."""

import os
import re
import reprlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.cross_checks import Problem, Where, inconsistencies
from configs.errors import UserError
from configs.models import NO_KEYS
from configs.schema import Recipe
from configs.yaml_lines import BadDocument, Document

SECRET = re.compile(r"api.?key|secret|password|authorization|^(auth.?|access.?)?token$", re.IGNORECASE)
"""Unknown keys of a recipe that look as if their value were an API key."""
NEVER_QUOTED = frozenset({"base_url", "api_key_env"})
"""Settings whose value no message repeats, because it may be an API key by mistake."""
SHORT = reprlib.Repr()
"""Shortens the values in messages."""
SHORT.maxstring = 80
SHORT.maxother = 80
SHORT.maxlong = 80


class RecipeError(UserError):
    """A recipe that cannot be used. `problems` has everything that is wrong with it, in file order."""

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def load(path: str | Path) -> Recipe:
    """Reads a recipe file.

    A path that does not exist is looked up among the presets, so that `tiny_cpu` and
    `configs/tiny_cpu.yaml` work in every folder.

    Raises:
        RecipeError: the file cannot be read, or the recipe has problems; the error has all of them.
    """
    file = _find_file(Path(path))
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read {str(path)!r}: {error}") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _recipe_error(str(path), [Problem((), f"not UTF-8: {error.reason}", line)]) from error
    return parse(text, folder=file.parent.resolve(), name=str(path))


def presets() -> list[str]:
    """The names of the recipes that the package ships, sorted."""
    files = resources.files("configs").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def parse(text: str, *, folder: Path, name: str = "recipe") -> Recipe:
    """Turns YAML text into a Recipe.

    Args:
        text: YAML.
        folder: from which relative paths in the recipe count.
        name: of the recipe's file, for messages.

    Raises:
        RecipeError: with every problem and its line.
    """
    try:
        document = Document(text)
    except BadDocument as error:
        raise _recipe_error(name, [error.problem]) from error
    data = document.data
    if not isinstance(data, dict):
        raise _recipe_error(name, [Problem((), "a recipe is a mapping of keys to values", 1)])
    problems = [*document.duplicates, *_resolve_files(data, folder)]
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += _pydantic_problems(error, data)
    if problems:
        raise _recipe_error(name, [_with_line(p, document) for p in problems])
    return recipe


def _find_file(path: Path) -> Path:
    # os.path says no where Path raises, for example if the name is too long.
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    preset = path.name.removesuffix(".yaml")
    if str(path.parent) in (".", "configs") and preset in presets():
        return Path(str(resources.files("configs").joinpath(f"{preset}.yaml")))
    raise RecipeError(f"no recipe {str(path)!r}; presets are: {', '.join(presets())}")


def _recipe_error(name: str, problems: list[Problem]) -> RecipeError:
    ordered = tuple(sorted(problems, key=lambda p: p.line or 0))
    lines = [f"{name}:{p.line}: {p}" if p.line else f"{name}: {p}" for p in ordered]
    return RecipeError("\n".join(lines), problems=ordered)


def _with_line(problem: Problem, document: Document) -> Problem:
    return Problem(problem.where, problem.message, problem.line or document.line(problem.where))


def _resolve_files(data: dict[str, Any], folder: Path) -> Iterator[Problem]:
    """Reads the prompt into the data and makes its paths absolute; yields what is wrong with them."""
    references = data.get("references")
    if isinstance(references, dict) and isinstance(references.get("prompt_file"), str):
        yield from _read_prompt(references, folder)
    access = data.get("access")
    if isinstance(access, dict) and access.get("keys_file") and isinstance(access["keys_file"], str):
        access["keys_file"] = str(folder / os.path.expanduser(access["keys_file"]))
    models = data.get("models")
    for model in models.values() if isinstance(models, dict) else ():
        for source in _sources(model):
            path = source.get("path")
            if path and isinstance(path, str):
                source["path"] = str(folder / os.path.expanduser(path))


def _sources(model: Any) -> Iterator[dict[str, Any]]:
    """All sources of weights of a model: its own, those of its adapters, those of what guesses for
    it."""
    if not isinstance(model, dict):
        return
    adapters, speculation = model.get("adapters"), model.get("speculation")
    lists = [model.get("weights")]
    if isinstance(adapters, dict):
        lists += [each.get("weights") for each in adapters.values() if isinstance(each, dict)]
    if isinstance(speculation, dict):
        lists.append(speculation.get("draft"))
    for sources in lists:
        yield from (s for s in (sources if isinstance(sources, list) else ()) if isinstance(s, dict))


def _read_prompt(references: dict[str, Any], folder: Path) -> Iterator[Problem]:
    where = ("references", "prompt_file")
    file = folder / references.pop("prompt_file")
    if "prompt" in references:
        yield Problem(where, "give either prompt or prompt_file")
    # The text goes to all models, some on other machines, so only the recipe's own files are allowed.
    if not _is_below(file, folder):
        yield Problem(where, f"{str(file)!r} is not in the recipe's folder")
        return
    if not file.is_file():
        yield Problem(where, f"there is no file {str(file)!r}")
        return
    try:
        prompt = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(where, f"cannot read it: {error}")
        return
    if prompt.strip():
        references["prompt"] = prompt
    else:
        yield Problem(where, f"{str(file)!r} is empty")


def _is_below(file: Path, folder: Path) -> bool:
    try:
        return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
    except ValueError:  # the path has a zero byte
        return False


def _pydantic_problems(error: ValidationError, data: dict[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    for item in error.errors(include_url=False):
        if item["type"] == "inconsistent":
            return list(item["ctx"]["problems"])
        if item["type"] == "too_short" and item["input"]:
            continue  # pydantic counts only the valid items; the invalid items have their own errors
        where = _without_tags(item["loc"])
        if item["type"] == "union_tag_invalid":
            where = (*where, "engine")
        problems.append(Problem(where, _message(item)))
    return [*problems, *inconsistencies(data)]


def _message(item: Any) -> str:
    """One error of pydantic in this project's words."""
    key = str(item["loc"][-1])
    match item["type"]:
        case "extra_forbidden":
            return NO_KEYS if SECRET.search(key) else "this key is not known here"
        case "missing":
            return "this key is required"
        case "union_tag_not_found":
            return "'engine' is required"
        case "union_tag_invalid":
            ctx = item["ctx"]
            return f"{ctx['tag']!r:.80} is not an engine; there are {ctx['expected_tags']}"
        case "secret":
            return NO_KEYS
    message = f"{item['msg'][0].lower()}{item['msg'][1:]}"
    return message if key in NEVER_QUOTED else f"{message}, not {SHORT.repr(item['input'])}"


def _without_tags(loc: tuple[str | int, ...]) -> Where:
    """The path in the YAML text for a location that pydantic gives.

    Pydantic adds the chosen member of a union, and a mark for keys:
    models, NAME, engine, weights, 0, kind of source, key -> models, NAME, weights, 0, key
    """
    if loc[0] == "models":
        loc = (*loc[:2], *loc[3:])
        kind = next((n + 1 for n, key in enumerate(loc) if isinstance(key, int)), len(loc))
        loc = (*loc[:kind], *loc[kind + 1 :])
    return tuple(key for key in loc if key != "[key]")
