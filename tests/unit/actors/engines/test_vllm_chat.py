"""What vLLM is told of a chat, without vLLM."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engine import Delta, Message
from actors.engines.vllm_chat import WITH_TEXT, Chat
from configs.schema import Sampling, VllmModel

THINK = "{{ '<|im_start|>' }}{% if not enable_thinking %}{{ '<think>\\n\\n</think>' }}{% endif %}"
GEMMA = "{{ '<|channel>thought\\n<channel|>' }}"


def chat(folder: Path, jinja: str = THINK, special: list[str] = [], **settings: Any) -> Chat:  # noqa: B006
    added = [{"content": token, "special": True} for token in special]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (folder / "chat_template.jinja").write_text(jinja)
    weights = [{"path": str(folder)}]
    model = VllmModel.model_validate({"engine": "vllm", "weights": weights} | settings)
    return Chat(model, folder)


class Tokenizer:
    """Decodes to the prompt's end."""

    def __init__(self, tail: str) -> None:
        self.tail = tail
        self.asked: list[int] = []

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        assert not skip_special_tokens
        self.asked = tokens
        return self.tail


def read(made: Chat, texts: list[str], tail: str = "assistant\n", **sampling: Any) -> list[Delta]:
    prompt = {"prompt_token_ids": list(range(100))}
    answer = made.answer(Tokenizer(tail), prompt, Sampling(**sampling))
    deltas = []
    for n, text in enumerate(texts, 1):
        deltas.append(answer.add(text, 1, "stop" if n == len(texts) else None))
        if deltas[-1].finish_reason:
            break
    return deltas


def test_arguments_of_a_call_win_over_those_of_the_model(tmp_path: Path) -> None:
    made = chat(tmp_path, template={"enable_thinking": False, "x": 1})
    assert made.arguments({}, []) == {"enable_thinking": False, "x": 1, "add_generation_prompt": True}
    assert made.arguments({"enable_thinking": True}, [])["enable_thinking"] is True


def test_a_last_turn_of_the_assistant_is_continued(tmp_path: Path) -> None:
    turns: list[Message] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "It is"},
    ]
    asked = chat(tmp_path).arguments({"x": 1}, turns)
    assert (asked["add_generation_prompt"], asked["continue_final_message"], asked["x"]) == (
        False,
        True,
        1,
    )
    assert "continue_final_message" not in chat(tmp_path).arguments({}, turns[:1])


def test_control_tokens_of_files_and_tokenizer_are_made_harmless(tmp_path: Path) -> None:
    made = chat(tmp_path, special=["<|im_end|>"])
    tokenizer = SimpleNamespace(
        all_special_tokens=["</s>"],
        added_tokens_decoder={
            1: SimpleNamespace(special=False),
            2: type("Token", (), {"special": True, "__str__": lambda _: "<x>"})(),
        },
    )
    made.note_tokenizer(tokenizer)
    said = "a<|im_end|>b</s>c<x>d<y>"
    assert made.defuse(said) == "a‹|im_end|>b‹/s>c‹x>d<y>"
    assert made.harmless([{"role": "user", "content": said}])[0]["content"] == made.defuse(said)


@pytest.mark.parametrize(
    ("template", "special", "expected", "config"),
    [
        ("{{ content }}", [], {"max_tokens": 15}, None),
        (
            THINK,
            [],
            {"max_tokens": 15, "thinking_token_budget": 7},
            {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"},
        ),
        (
            GEMMA,
            ["<|channel>", "<channel|>"],
            {"max_tokens": 15, "thinking_token_budget": 7, "skip_special_tokens": False},
            {"reasoning_start_str": "<|channel>thought", "reasoning_end_str": "<channel|>"},
        ),
    ],
)
def test_vllm_limits_reasoning_and_shows_its_marks(
    tmp_path: Path,
    template: str,
    special: list[str],
    expected: dict[str, Any],
    config: dict[str, str] | None,
) -> None:
    made = chat(tmp_path, template, special)
    assert made.sampling_arguments(Sampling(max_tokens=8, thinking_tokens=7)) == expected
    assert made.reasoning_config == config
    plain = made.sampling_arguments(Sampling(max_tokens=8))
    assert (plain["max_tokens"], "thinking_token_budget" in plain) == (8, False)


def test_reasoning_and_text_are_told_apart(tmp_path: Path) -> None:
    deltas = read(chat(tmp_path), ["<think>", "hm", "</think>", "\n\n", "Four", "."])
    assert [(d.text, d.reasoning) for d in deltas if d != Delta()] == [
        ("", "hm"),
        ("Four", ""),
        (".", ""),
    ]
    assert (deltas[-1].finish_reason, deltas[-1].completion_tokens) == ("stop", 6)


def test_a_thought_that_the_prompt_begins_is_no_text(tmp_path: Path) -> None:
    deltas = read(chat(tmp_path), ["hm", "</think>", "Four"], tail="assistant\n<think>\n")
    assert ("".join(d.text for d in deltas), deltas[0].reasoning) == ("Four", "hm")


def test_the_answer_ends_when_it_has_its_own_tokens(tmp_path: Path) -> None:
    texts = ["<think>", "a", "b", "c", "</think>", "one", " two", " three", " four"]
    deltas = read(chat(tmp_path), texts, max_tokens=2, thinking_tokens=9)
    assert "".join(d.text for d in deltas) == "one two"
    assert (deltas[-1].finish_reason, deltas[-1].completion_tokens) == ("length", 7)


def test_without_a_limit_of_its_own_reasoning_counts_among_max_tokens(tmp_path: Path) -> None:
    deltas = read(chat(tmp_path), ["<think>", "a", "</think>", "one", " two"], max_tokens=1)
    assert "".join(d.text for d in deltas) == "one two"  # vLLM itself holds the limit


def test_the_recipe_can_name_the_format_or_turn_it_off(tmp_path: Path) -> None:
    deltas = read(chat(tmp_path, reasoning_format="none"), ["<think>a</think>b"])
    assert deltas[0].text == "<think>a</think>b"
    deltas = read(chat(tmp_path, "{{ x }}", reasoning_format="mistral"), ["[THINK]a[/THINK]b"])
    assert (deltas[0].text, deltas[0].reasoning) == ("b", "a")


class Mark:
    """Encodes the text between the prompt and the answer: a token for each word."""

    def __init__(self, tail: str = "<|im_start|>assistant\n<think>\n") -> None:
        self.tail = tail
        self.encoded: list[str] = []

    def decode(self, _: list[int], *, skip_special_tokens: bool) -> str:
        assert not skip_special_tokens
        return self.tail

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        self.encoded.append(text)
        return [100 + n for n in range(len(text.split()))]


def test_a_message_that_ends_within_a_bounded_thought_is_answered_in_a_second_call(
    tmp_path: Path,
) -> None:
    made, mark = chat(tmp_path), Mark()
    sampling = Sampling(max_tokens=2, thinking_tokens=10)
    answer = made.answer(mark, {"prompt_token_ids": [1, 2, 3]}, sampling)
    arguments = made.sampling_arguments(sampling) | {"temperature": 0.5, "min_tokens": 5}
    assert answer.first_call(arguments) == arguments
    assert answer.add("Paris is", 2, None) == Delta("", "Paris is")
    assert answer.add("", 1, "stop") == Delta()  # no end: the answer is to come
    assert answer.is_unanswered
    prompt, second = answer.second_call(mark, arguments)
    assert mark.encoded[0] == "Paris is\n</think>\n\n"
    assert prompt == [1, 2, 3, 100, 101, 102]
    assert second == arguments | {
        "max_tokens": 2,
        "min_tokens": 2,
        "thinking_token_budget": None,
        "bad_words": ["<think>", "</think>"],
        "structured_outputs": WITH_TEXT,
    }
    assert not answer.is_unanswered
    # Both tokens of the answer have room, and all tokens count: thought, end, mark, answer.
    assert answer.add("It is", 1, None) == Delta("It is")
    assert answer.add(" Paris", 1, None) == Delta(" Paris", "", "length", completion_tokens=6)


def test_the_form_of_an_answer_waits_for_the_end_of_the_thought(tmp_path: Path) -> None:
    form = {"structured_outputs": {"json_object": True}, "bad_words": ["x"]}
    sampling = Sampling(extra={"structure": {"json_object": True}})
    made, mark = chat(tmp_path), Mark()
    answer = made.answer(mark, {"prompt_token_ids": [1]}, sampling)
    assert answer.first_call(form) == {"bad_words": ["x"]}
    answer.add("hm</think>", 2, None)
    assert answer.is_unanswered
    _, second = answer.second_call(mark, form)
    assert (second["structured_outputs"], second["bad_words"]) == (
        {"json_object": True},
        ["x", "<think>", "</think>"],
    )
    closed = Mark("<think>\n\n</think>\n\n")  # the model cannot think: one call is enough
    assert made.answer(closed, {"prompt_token_ids": [1]}, sampling).first_call(form) == form


def test_the_first_character_of_an_answer_is_not_blank() -> None:
    for text, fits in (("a", True), ("a\n b", True), (" a", False), ("\u3000a", False), ("", False)):
        assert bool(re.fullmatch(WITH_TEXT["regex"], text)) is fits
