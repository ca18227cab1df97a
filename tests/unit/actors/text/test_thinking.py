"""Reasoning is told from text by every family's marks, however an answer is cut into pieces."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import Message
from actors.text.thinking import (
    Splitter,
    split,
    without_leading_thought,
    without_reasoning,
)
from actors.text.thinking_marks import ANY, BY_NAME, FAMILIES, Family, families_of

THOUGHT, ANSWER = "Let me see: 2 < 3, and `x[0]`.\nYes.", "It is <b>4</b> [1].\n\nDone."
TEXTS = st.text(alphabet="ab <|>/[]‹◁▷thinkcanel\n`'", max_size=40)


def pieces(text: str, seed: int) -> list[str]:
    """The text in pieces of 1 to 4 characters."""
    draw, cut, at = random.Random(seed), [], 0
    while at < len(text):
        size = draw.randint(1, 4)
        cut.append(text[at : at + size])
        at += size
    return cut


def grown(splitter: Splitter, parts: list[str]) -> tuple[str, str]:
    """The whole text and thought of an answer that comes in parts."""
    split_parts = [*map(splitter.feed, parts), splitter.end()]
    return "".join(part[0] for part in split_parts), "".join(part[1] for part in split_parts)


def answer_of(family: Family) -> str:
    """An answer as a model of the family writes it, with its frame."""
    if family.name == "harmony":
        return (
            f"<|channel|>analysis<|message|>{THOUGHT}<|end|>"
            f"<|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"
        )
    if family.name == "solar":
        return f"<|think|>{THOUGHT}<|end|><|begin|>assistant<|content|>{ANSWER}"
    if family.name == "cohere":
        return f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>"
    return f"{family.begins[0]}\n{THOUGHT}\n{family.end}\n\n{ANSWER}"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("only", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_a_thought_and_an_answer_are_told_apart(family: Family, only: bool, seed: int) -> None:
    splitter = Splitter((family,) if only else FAMILIES)
    text, thought = grown(splitter, pieces(answer_of(family), seed))
    assert (text, thought.strip()) == (ANSWER, THOUGHT)
    assert not splitter.is_thinking


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("repeats_mark", [True, False])
def test_a_thought_that_the_prompt_begins_is_told_apart(family: Family, repeats_mark: bool) -> None:
    prompt = f"<user>hi</user>\n<assistant>{family.begins[0]}\n"
    assert family.opens(prompt)
    assert not family.opens(f"{prompt}{family.end}\n\n")
    written = answer_of(family)
    written = written if repeats_mark else written.removeprefix(family.begins[0])
    text, thought = grown(Splitter((family,), is_open=True), pieces(written, 1))
    assert (text, thought.strip()) == (ANSWER, THOUGHT)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_thought_that_never_ends_is_no_text(family: Family) -> None:
    text, thought = grown(Splitter(FAMILIES), pieces(f"{family.begins[0]}{THOUGHT}", 2))
    assert (text, thought.strip()) == ("", THOUGHT)


@given(text=TEXTS, seed=st.integers(0, 9), opened=st.booleans())
def test_pieces_give_what_the_whole_gives(text: str, seed: int, opened: bool) -> None:
    families = FAMILIES[:1] if opened else FAMILIES
    whole = split(text, families, is_open=opened)
    assert grown(Splitter(families, is_open=opened), pieces(text, seed)) == whole


@given(text=TEXTS)
def test_without_families_everything_is_text(text: str) -> None:
    assert split(text, ()) == (text, "")


@given(before=st.text(alphabet="ab c.\n", min_size=1, max_size=9), text=TEXTS)
def test_text_that_does_not_begin_with_a_mark_stays_byte_for_byte(before: str, text: str) -> None:
    tags = [family for family in FAMILIES if not family.is_repeated and not family.frame]
    answer = f"x{before}{text}"
    assert split(answer, tags) == (answer, "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("<think>end it with `</think>` please</think>c", ("c", "end it with `</think>` please")),
        ('<think>he said "no"</think>c', ("c", 'he said "no"')),
        ('<think>he said "</think>', ("", 'he said "')),
        ("Qwen writes <think> first.", ("Qwen writes <think> first.", "")),
        ("`<think>` begins a thought", ("`<think>` begins a thought", "")),
        ("<think>a</think><think>b</think>c", ("c", "ab")),
        ("<think>\n\n</think>\n\nc", ("c", "")),
        ("</think>\n\nc", ("c", "")),
        ("  <think>a</think> c", ("c", "a")),
        ("  c", ("  c", "")),
        ("<thi", ("<thi", "")),
        ("", ("", "")),
    ],
)
def test_marks_and_mentions(written: str, expected: tuple[str, str]) -> None:
    families = (BY_NAME["think"],)
    assert split(written, families) == expected
    assert grown(Splitter(families), list(written)) == expected


def test_gpt_oss_may_think_twice_and_its_headers_never_show() -> None:
    written = (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b"
        "<|end|><|start|>assistant<|channel|>final<|message|>one<|channel|>two<|return|>"
    )
    hidden = {"<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>"}
    for seed in range(9):
        splitter = Splitter((BY_NAME["harmony"],), hidden=hidden)
        assert grown(splitter, pieces(written, seed)) == ("onetwo", "ab")


def test_control_tokens_that_an_engine_writes_out_never_show() -> None:
    splitter = Splitter((BY_NAME["mistral"],), hidden={"[THINK]", "[/THINK]", "</s>"})
    assert grown(splitter, list("[THINK]a</s>b[/THINK]c</s>")) == ("c", "ab")


def test_text_is_given_as_soon_as_it_cannot_be_a_mark() -> None:
    splitter = Splitter(FAMILIES)
    assert splitter.feed("Hello") == ("Hello", "")
    assert splitter.feed(" <think>") == (" <think>", "")
    splitter = Splitter((BY_NAME["think"],))
    assert splitter.feed("<think>one") == ("", "one")
    assert splitter.feed(" two </") == ("", " two ")
    assert splitter.feed("b>") == ("", "</b>")


TEMPLATES = {
    "think": "{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
    "gemma4": "{{ '<|channel>thought\\n<channel|>' }}",
    "harmony": "'<|start|>assistant<|channel|>analysis<|message|>' ... '<|end|>'",
    "mistral": "Draft it between [THINK] and [/THINK]",
    "cohere": "<|START_THINKING|>...<|END_THINKING|>",
    "seed": "<seed:think>...</seed:think>",
    "solar": "<|begin|>assistant<|think|>...<|end|><|begin|>assistant<|content|>",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_chat_template_shows_the_family(name: str) -> None:
    assert families_of("auto", TEMPLATES[name]) == (BY_NAME[name],)


def test_settings_and_unknown_templates() -> None:
    assert families_of("none", TEMPLATES["think"]) == ()
    assert families_of("gemma4", "") == (BY_NAME["gemma4"],)
    assert families_of("auto", "{{ messages[0].content }}<|im_end|>") == ()
    assert families_of("auto", None) == ANY


def test_old_thoughts_are_not_shown_to_the_model_again() -> None:
    said = [
        Message(role="user", content="<think>mine</think>"),
        Message(role="assistant", content="<think>old</think>\n\nanswer"),
        Message(role="assistant", content="it is <think>"),
    ]
    shown = without_leading_thought(said, (BY_NAME["think"],))
    assert [m["content"] for m in shown] == ["<think>mine</think>", "answer", "it is <think>"]
    assert without_leading_thought(said, ()) == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("Here is my thought process: I add.", "Here is my thought process: I add."),
        ("<|channel>thought\na<channel|>b", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        ("<think>a</think>b", "b"),
        ("<thinking>\na\n</thinking>\n\nb", "b"),
        ("<Think>a</THINK> b", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<think>a <think> b</think>c", "c"),
        ("<think>say `</think>` when done</think>c", "c"),
        ("<think>never closed", ""),
        ("b\n<think>never closed", "b"),
        ("opened in the prompt</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("a <think>b</think>c</think>d", "d"),
        ("<think></think>", ""),
        ("", ""),
        # mentions
        ("I think so; thinking <b>helps</b>", "I think so; thinking <b>helps</b>"),
        ("Qwen writes <think> first.", "Qwen writes <think> first."),
        ("End it with `</think>`, not </b>.", "End it with `</think>`, not </b>."),
        ("re.sub(r'<think>.*?</think>', '', s)", "re.sub(r'<think>.*?</think>', '', s)"),
        ("<thinker>a</thinker>", "<thinker>a</thinker>"),
    ],
)
def test_reasoning_is_stripped_and_mentions_of_it_stay(text: str, expected: str) -> None:
    assert without_reasoning(text) == expected


@pytest.mark.parametrize("text", ["<think>" * 50_000, "a <think> " * 50_000, "</think>" * 50_000])
@pytest.mark.timeout(5)
def test_stripping_takes_no_longer_than_the_text_is(text: str) -> None:
    assert without_reasoning(text) in ("", text.strip())
