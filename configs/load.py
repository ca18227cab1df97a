"""A YAML file -> a Recipe that needs no other file: prompts are read in, paths are made absolute."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs import sentences
from configs.cross_checks import inconsistencies
from configs.errors import UserError
from configs.known_keys import nearest
from configs.limit_checks import cautions, contradictions
from configs.problem import Problem
from configs.schema import Recipe
from configs.void_settings import void_settings
from configs.yaml_lines import MOST_CHARACTERS, BadDocument, Document

NEVER_QUOTED = frozenset({"base_url", "api_key_env"})
"""Settings whose value no message repeats, because it may be an API key by mistake."""

NO_TEXT = "not UTF-8: save the file as UTF-8 text"
IS_WEIGHTS = (
    "this is a file of weights, not a recipe; `slimmoa new mine.yaml {}` writes a recipe for it"
)
NO_MAPPING = (
    "a recipe is a mapping of keys to values (name, models, layers, aggregator); `slimmoa new` "
    "writes one"
)


class RecipeError(UserError):
    """A recipe that cannot be used. `problems` has everything that is wrong with it, in file order."""

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe that can be used, and what is odd about it."""

    recipe: Recipe
    cautions: tuple[str, ...]
    """Warnings for a person, each with the recipe's name and the line."""


def load(path: str | Path) -> Recipe:
    """Reads a recipe file, as `read` does, without its cautions."""
    return read(path).recipe


def read(path: str | Path) -> Loaded:
    """Reads a recipe file.

    A path that does not exist is looked up among the presets, so that `tiny_cpu` and
    `configs/tiny_cpu.yaml` work in every folder.

    Raises:
        RecipeError: the file cannot be read, or the recipe has problems; the error has all of them.
    """
    file = _find_file(Path(path))
    try:
        with file.open("rb") as stream:  # some devices, such as /dev/zero, never end
            content = stream.read(4 * MOST_CHARACTERS + 1)
    except OSError as error:
        raise RecipeError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content.startswith(b"GGUF") or file.suffix in (".gguf", ".safetensors"):
            raise RecipeError(f"{path}: {IS_WEIGHTS.format(path)}") from error
        line = content.count(b"\n", 0, error.start) + 1
        raise _recipe_error(str(path), [Problem((), NO_TEXT, line)]) from error
    return read_text(text, folder=file.parent.resolve(), name=str(path))


def presets() -> list[str]:
    """The names of the recipes that the package ships, sorted."""
    files = resources.files("configs").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def parse(text: str, *, folder: Path, name: str = "recipe") -> Recipe:
    """Turns YAML text into a Recipe, as `read_text` does, without its cautions."""
    return read_text(text, folder=folder, name=name).recipe


def read_text(text: str, *, folder: Path, name: str = "recipe") -> Loaded:
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
        raise _recipe_error(name, [Problem((), NO_MAPPING, 1)])
    problems = [*document.duplicates, *_resolve_files(data, folder)]
    try:
        recipe = Recipe.model_validate(data)
        problems += contradictions(recipe)
    except ValidationError as error:
        problems += _pydantic_problems(error, data)
    if problems:
        raise _recipe_error(name, [_with_line(p, document) for p in problems])
    odd = [_with_line(p, document) for p in (*cautions(recipe), *void_settings(recipe))]
    return Loaded(recipe, tuple(dict.fromkeys(_lines(name, odd))))


def _find_file(path: Path) -> Path:
    # os.path says no where Path raises, for example if the name is too long.
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    preset = path.name.removesuffix(".yaml")
    if str(path.parent) in (".", "configs") and preset in presets():
        return Path(str(resources.files("configs").joinpath(f"{preset}.yaml")))
    if os.path.isdir(path):
        raise RecipeError(f"{str(path)!r} is a folder; name the recipe's file in it")
    close = nearest(preset, presets()) or nearest(path.name, _recipes_beside(path))
    known = f"did you mean {close}?" if close else f"the presets are: {', '.join(presets())}"
    raise RecipeError(f"no recipe {str(path)!r}: there is no such file, and no such preset; {known}")


def _recipes_beside(path: Path) -> list[str]:
    """The names of YAML files in a path's folder."""
    try:
        return [name for name in os.listdir(path.parent) if name.endswith((".yaml", ".yml"))][:200]
    except (OSError, ValueError):
        return []


def _recipe_error(name: str, problems: list[Problem]) -> RecipeError:
    return RecipeError("\n".join(_lines(name, problems)), problems=tuple(_in_order(problems)))


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda p: p.line or 0)


def _lines(name: str, problems: list[Problem]) -> list[str]:
    return [f"{name}:{p.line}: {p}" if p.line else f"{name}: {p}" for p in _in_order(problems)]


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
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        yield Problem(where, f"cannot read it: {why}")
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
    for item in error.errors(include_url=False):
        if item["type"] == "inconsistent":
            return list(item["ctx"]["problems"])
    found = sentences.problems(error, Recipe, never_quoted=NEVER_QUOTED)
    return [*found, *inconsistencies(data)]
