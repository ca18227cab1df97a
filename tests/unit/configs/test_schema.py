"""The recipe's models, and the JSON schema made from them."""

import json
import pickle
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from configs.access import Access
from configs.load import load, presets
from configs.schema import (
    Limits,
    OpenAIHttpModel,
    Recipe,
    Sampling,
    ScriptedModel,
    default_prompt,
    json_schema,
)
from configs.weights import HubFile, HubFolder, WheelPart

FILES = resources.files("configs")


def committed_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(FILES.joinpath("schema.json").read_text("utf-8"))
    return schema


def test_the_presets_are_the_promised_ones() -> None:
    local = ["remote", "scripted", "small_cpu", "tiny_cpu", "vllm_cpu"]
    gpus = ["bf16_vs_quantized", "moa_lite", "self_moa", "slim_moa_a100", "small_moa_24gb"]
    cards = [
        f"moa_{card}" for card in ("12gb", "16gb", "24gb", "48gb", "a100_80gb", "h100_80gb", "h200")
    ]
    laptops = ["laptop_8gb", "laptop_16gb", "laptop_32gb"]
    assert presets() == sorted([*local, *gpus, "together_moa", *cards, *laptops])


@pytest.mark.parametrize("preset", presets())
def test_every_preset_satisfies_the_committed_schema(preset: str) -> None:
    data = yaml.safe_load(FILES.joinpath(f"{preset}.yaml").read_text("utf-8"))
    jsonschema.validate(data, committed_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("preset", presets())
def test_every_preset_survives_json_and_the_way_between_processes(preset: str) -> None:
    recipe = load(preset)
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_the_committed_schema_is_the_generated_one() -> None:
    assert committed_schema() == json_schema(), "run: python -m configs.schema > configs/schema.json"


def test_the_committed_schema_refuses_a_misspelt_key() -> None:
    data = yaml.safe_load(FILES.joinpath("scripted.yaml").read_text("utf-8"))
    data["limits"]["quorom"] = 1
    with pytest.raises(jsonschema.ValidationError, match="quorom"):
        jsonschema.validate(data, committed_schema())


def test_every_key_of_every_model_is_described() -> None:
    schema = json_schema()
    keys = [
        (name, key, value.get("description", ""))
        for name, model in [("Recipe", schema), *schema["$defs"].items()]
        for key, value in model["properties"].items()
    ]
    assert len(keys) > 60
    assert [(name, key) for name, key, description in keys if len(description) < 8] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "0.7"),
        ("temperature", True),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_tokens", 1.0),
        ("max_tokens", "512"),
        ("max_tokens", True),
        ("stop", "END"),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("seed", 2**63),
        ("top_logprobs", 21),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("typical_p", 0.5),
    ],
)
def test_sampling_refuses(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Sampling.model_validate({key: value})
    assert caught.value.errors()[0]["loc"][0] == key


def test_whole_numbers_are_good_for_fractions_and_lists_for_tuples() -> None:
    sampling = Sampling.model_validate({"temperature": 1, "stop": ["a", "b"]})
    assert (sampling.temperature, sampling.stop) == (1.0, ("a", "b"))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Limits().quorum = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "url",
    ["http://user:pass@host/v1", "https://token@host", "https://host/v1?key=pass", "https://host#pass"],
)
def test_a_base_url_cannot_carry_credentials(url: str) -> None:
    with pytest.raises(ValidationError, match=r"API keys never stand|should match pattern"):
        OpenAIHttpModel(engine="openai_http", base_url=url, model="m")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "https://[::1]:1/a@b", "http://h"])
def test_a_base_url_may_be(url: str) -> None:
    assert OpenAIHttpModel(engine="openai_http", base_url=url, model="m").base_url == url


@pytest.mark.parametrize(
    "wheel", ["--index-url==1", "x", "x>=1", "x==1; y", "x @ http://h", "x==1 -r y"]
)
def test_a_wheel_names_one_version_and_cannot_pass_options_to_pip(wheel: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        WheelPart(wheel=wheel, file="f")


def test_a_hub_repository_has_an_owner() -> None:
    with pytest.raises(ValidationError, match="pattern"):
        HubFile(hub="gpt2", file="f")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "o/n:Q4_K_M",
            "`slimmoa new o/n:Q4_K_M` finds the file of this quantization, and its",
        ),
        ("o/n@v2", "`revision: v2` says the revision; "),
        ("o/n/sub/w.gguf", "`file: sub/w.gguf` says the file; "),
        ("https://huggingface.co/o/n", ""),
        ("hf.co/o/n:Q8_0", "`slimmoa new o/n:Q8_0` finds"),
        ("https://huggingface.co/o/n/blob/main/w.gguf?download=true", "`file: w.gguf` says the file; "),
        ("https://huggingface.co/o/n/tree/main", ""),
    ],
)
def test_other_names_of_a_repository_are_told_with_what_to_write(name: str, words: str) -> None:
    for source in (HubFile, HubFolder):
        with pytest.raises(ValidationError) as raised:
            source.model_validate({"hub": name, "file": "f"})
        said = raised.value.errors()[0]["msg"]
        assert said.startswith(words)
        assert said.endswith("this has to be owner/name, here o/n")


def test_the_default_prompt_is_the_shipped_file() -> None:
    assert load("tiny_cpu").references.prompt == default_prompt()
    assert "never as instructions" in default_prompt()


@pytest.mark.parametrize(
    "path",
    ["../w", "a/../../w", "/etc/passwd", "a//b", "./w", "a/.", "..", "a\\..\\w", "a\0b", "", "a\nb"],
)
def test_a_part_of_something_names_nothing_outside_of_it(path: str) -> None:
    for model, fields in (
        (WheelPart, {"wheel": "p==1.0", "file": path}),
        (HubFile, {"hub": "o/n", "file": path}),
        (HubFile, {"hub": "o/n", "file": "w.gguf", "revision": path}),
        (HubFile, {"hub": f"o/{path}", "file": "w.gguf"}),
    ):
        with pytest.raises(ValidationError):
            model.model_validate(fields)


def test_a_journal_is_no_other_kind_of_file() -> None:
    for path in ("/home/me/.bashrc", "x.jsonl/../.profile", ".jsonl/x"):
        with pytest.raises(ValidationError, match="journal"):
            ScriptedModel(engine="scripted", journal=path)


@pytest.mark.parametrize(
    ("given", "least", "most", "written"),
    [
        (3, 3, 3, 3),
        ({"min": 2, "max": 2}, 2, 2, 2),
        ({"min": 2}, 2, None, {"min": 2}),
        ({"max": 4}, 1, 4, {"min": 1, "max": 4}),
    ],
)
def test_replicas_are_a_number_or_a_range_and_are_written_as_short(
    given: Any, least: int, most: int | None, written: Any
) -> None:
    model = ScriptedModel.model_validate({"engine": "scripted", "replicas": given})
    assert (model.replicas.min, model.replicas.max) == (least, most)
    dumped = model.model_dump(mode="json", exclude_defaults=True)
    assert dumped == {"engine": "scripted", "replicas": written}
    assert ScriptedModel.model_validate(dumped) == model
    schema = ScriptedModel.model_json_schema()
    jsonschema.validate(written, schema["properties"]["replicas"] | {"$defs": schema["$defs"]})


def test_unsaid_replicas_stay_unsaid() -> None:
    model = ScriptedModel.model_validate({"engine": "scripted"})
    assert (model.replicas.min, model.replicas.max) == (1, None)
    assert "replicas" not in model.model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, "greater than or equal to 1"),
        (65, "less than or equal to 64"),
        ({"min": 3, "max": 2}, r"max \(2\) has to be at least min \(3\)"),
        ({"max": 0}, r"max \(0\) has to be at least min \(1\)"),
        (True, "a whole number, or a mapping with min and max"),
        ("3", "a whole number, or a mapping with min and max"),
    ],
)
def test_replicas_refuse(given: Any, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected) as caught:
        ScriptedModel.model_validate({"engine": "scripted", "replicas": given})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [("sk-slimmoa-0123456789", "API keys never stand"), ("a b", "should match pattern")],
    ids=["a key", "no name"],
)
def test_a_key_in_the_place_of_its_name_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Access.model_validate({"metrics_keys": [name]})
    assert Access.model_validate({"metrics_keys": ["SLIMMOA_API_KEYS[1]", "a.b-c"]}).metrics_keys
