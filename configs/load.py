"""A YAML file -> a Recipe that needs no other file: prompts are read in, paths made absolute."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.consistency import Problem, Where, inconsistencies
from configs.schema import Recipe


class RecipeError(ValueError):
    """A recipe that cannot be used. `problems` holds everything wrong with it, in file order."""

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def load(path: str | Path) -> Recipe:
    """Read a recipe file.

    A path that does not exist is also looked up among the presets, so `tiny_cpu` and
    `configs/tiny_cpu.yaml` work from any folder.

    Raises:
        RecipeError: the file cannot be read, or has problems; each with its line.
    """
    file = _find(Path(path))
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {str(path)!r}: {error}") from error
    return parse(text, folder=file.parent.resolve(), name=str(path))


def presets() -> list[str]:
    """Names of the recipes that the package ships."""
    files = resources.files("configs").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def parse(text: str, *, folder: Path, name: str = "recipe") -> Recipe:
    """Turn YAML text into a Recipe; relative paths in it count from `folder`.

    Raises:
        RecipeError: with every problem and its line.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        what = f"not valid YAML: {getattr(error, 'problem', None) or error}"
        raise _error(name, [Problem((), what, line)]) from error
    if not isinstance(data, dict):
        raise _error(name, [Problem((), "a recipe is a mapping of keys to values", 1)])
    problems = [*_duplicate_keys(root), *_read_files(data, folder)]
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += _from_pydantic(error, data)
    if problems:
        raise _error(name, [_with_line(p, root) for p in problems])
    return recipe


def _find(path: Path) -> Path:
    if path.exists():
        return path
    preset = path.name if path.suffix else f"{path.name}.yaml"
    shipped = resources.files("configs").joinpath(preset)
    if str(path.parent) in (".", "configs") and shipped.is_file():
        return Path(str(shipped))
    raise RecipeError(f"no recipe {str(path)!r}; presets are: {', '.join(presets())}")


def _error(name: str, problems: list[Problem]) -> RecipeError:
    ordered = tuple(sorted(problems, key=lambda p: p.line or 0))
    lines = [f"{name}:{p.line}: {p}" if p.line else f"{name}: {p}" for p in ordered]
    return RecipeError("\n".join(lines), problems=ordered)


def _read_files(data: dict[str, Any], folder: Path) -> Iterator[Problem]:
    references = data.get("references")
    if isinstance(references, dict) and isinstance(references.get("prompt_file"), str):
        if "prompt" in references:
            yield Problem(("references", "prompt_file"), "give either prompt or prompt_file")
        file = folder / references.pop("prompt_file")
        try:
            references["prompt"] = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            yield Problem(("references", "prompt_file"), f"cannot read it: {error}")
    models = data.get("models")
    for model in models.values() if isinstance(models, dict) else ():
        weights = model.get("weights") if isinstance(model, dict) else None
        for source in weights if isinstance(weights, list) else ():
            if isinstance(source, dict) and isinstance(source.get("path"), str):
                source["path"] = str(folder / Path(source["path"]).expanduser())


def _from_pydantic(error: ValidationError, data: dict[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    for item in error.errors(include_url=False):
        if item["type"] == "inconsistent":
            return list(item["ctx"]["problems"])
        if item["type"] == "too_short" and item["input"]:
            continue  # pydantic counts only the valid items; the invalid ones are reported already
        problems.append(Problem(_without_tags(item["loc"], data), _plain(item)))
    return [*problems, *inconsistencies(data)]


def _plain(item: Any) -> str:
    match item["type"]:
        case "extra_forbidden":
            return "this key is not known here"
        case "missing" | "union_tag_not_found":
            return "this key is required" if item["type"] == "missing" else "'engine' is required"
        case "union_tag_invalid":
            ctx = item["ctx"]
            return f"{ctx['tag']!r} is not an engine; there are {ctx['expected_tags']}"
    message: str = item["msg"]
    return f"{message[0].lower()}{message[1:]}, not {item['input']!r:.80}"


def _without_tags(loc: tuple[str | int, ...], data: Any) -> Where:
    """Pydantic puts the chosen union member's tag into a location; YAML has no such key."""
    where: list[str | int] = []
    here = data
    for n, key in enumerate(loc):
        last = n == len(loc) - 1
        known = isinstance(here, dict) and key in here
        indexed = isinstance(here, list) and isinstance(key, int) and key < len(here)
        if known or indexed:
            here = here[key]
        elif not last or key == "[key]":
            continue
        where.append(key)
    return tuple(where)


def _duplicate_keys(node: yaml.Node | None, where: Where = ()) -> Iterator[Problem]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            inner = (*where, key.value)
            if key.value in seen:
                line = key.start_mark.line + 1
                yield Problem(inner, "this key stands here twice", line)
            seen.add(key.value)
            yield from _duplicate_keys(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for n, value in enumerate(node.value):
            yield from _duplicate_keys(value, (*where, n))


def _with_line(problem: Problem, root: yaml.Node | None) -> Problem:
    if problem.line is not None:
        return problem
    line, node = 1, root
    for key in problem.where:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == key]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key >= len(node.value):
                break
            node = node.value[key]
            line = node.start_mark.line + 1
    return Problem(problem.where, problem.message, line)
