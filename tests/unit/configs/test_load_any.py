"""`parse` either reads a text or refuses it with the lines of its problems, whatever the text is."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import RecipeError, parse
from configs.schema import Recipe

PRESET = resources.files("configs").joinpath("tiny_cpu.yaml").read_text("utf-8")
KEYS = st.sampled_from(
    [*Recipe.model_fields, "a", "engine", "path", "hub", "wheels", "prompt_file", "<<"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.dates(),
    st.binary(max_size=3),
    st.sampled_from(["a", "llamacpp", "scripted", "{text", "~", "http://[", "\0"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
TOKENS = st.sampled_from(
    [
        *"\n\n  ::--[]{},&*!|>'\"#%@`?.<=~0\t",
        ": ",
        "- ",
        "\n  ",
        "&a ",
        "*a",
        "<<: *a",
        "!!int ",
        "a",
        "é",
    ]
)


def read_or_refuse(text: str) -> None:
    """Fails if `parse` raises anything but a RecipeError whose problems have lines."""
    refused: RecipeError | None = None
    try:
        parse(text, folder=Path("/recipes"))
    except RecipeError as error:
        refused = error
    assert refused is None or (refused.problems and all(problem.line for problem in refused.problems))


@settings(deadline=None)
@given(st.lists(TOKENS, max_size=60).map("".join) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=7))
def test_any_data_is_read_or_refused(data: dict[str, Any]) -> None:
    read_or_refuse(yaml.safe_dump(data, allow_unicode=True))


@settings(deadline=None)
@given(st.data())
def test_any_change_to_a_recipe_is_read_or_refused(data: st.DataObject) -> None:
    recipe = yaml.safe_load(PRESET)
    here: Any = recipe
    while isinstance(here, dict | list) and here:
        keys = st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here)))
        key = data.draw(keys)
        if data.draw(st.booleans()):
            break
        here = here[key]
    if isinstance(here, dict):
        here[data.draw(KEYS)] = data.draw(VALUES)
    elif isinstance(here, list):
        here[:] = data.draw(st.lists(VALUES, max_size=3))
    read_or_refuse(yaml.safe_dump(recipe, allow_unicode=True))
