"""Which answers take a second call, and what that call reads."""

from typing import Any

import pytest

from actors.engine import FinishReason
from actors.text.answer_reader import BLANK, AnswerReader
from actors.text.chat_marks import ChatMarks
from actors.text.thinking_marks import BY_NAME
from configs.schema import Sampling

THINK = ChatMarks([BY_NAME["think"]], {"<|im_end|>"}, ())
OPEN, PLAIN, CLOSED = "assistant\n<think>\n", "assistant\n", "assistant\n<think>\n\n</think>\n\n"
JSON = {"extra": {"structure": {"json_object": True}}}
Piece = tuple[str, int, FinishReason | None]


def reads(reader: AnswerReader, *pieces: Piece) -> tuple[str, str, FinishReason | None]:
    """Text, thought and end of what the pieces add, up to the end of the call."""
    text = thought = ""
    for piece in pieces:
        read = reader.read(*piece)
        text, thought = text + read.text, thought + read.reasoning
        if read.finish or reader.is_unanswered:
            return text, thought, read.finish
    return text, thought, None


BOUNDED = {"max_tokens": 20, "thinking_tokens": 10}


@pytest.mark.parametrize(
    ("prompt", "sampling", "pieces", "between", "room"),
    [
        pytest.param(OPEN, BOUNDED, [("hm", 1, "stop")], "hm\n</think>\n\n", 20, id="within"),
        pytest.param(
            PLAIN,
            BOUNDED,
            [("<think>hm", 2, "stop")],
            "<think>hm\n</think>\n\n",
            20,
            id="begun-by-model",
        ),
        pytest.param(
            OPEN,
            BOUNDED,
            [("hm</think>", 2, None), ("", 3, "stop")],
            "hm\n</think>\n\n",
            20,
            id="behind",
        ),
        pytest.param(
            OPEN, BOUNDED, [("hm</think>\n\n \t", 4, "stop")], "hm\n</think>\n\n", 20, id="blank"
        ),
        pytest.param(CLOSED, BOUNDED, [(" \n", 1, "stop")], "", 20, id="blank-without-thought"),
        pytest.param(OPEN, BOUNDED, [("", 1, "stop")], "\n</think>\n\n", 20, id="at-once"),
        pytest.param(
            OPEN, {"max_tokens": 20}, [("hm", 7, "stop")], "hm\n</think>\n\n", 13, id="unbounded"
        ),
        pytest.param(
            OPEN,
            BOUNDED,
            [("a", 11, None), ("b", 26, None), ("c", 27, None), ("d", 28, None)],
            "a\n</think>\n\n",  # the second prompt holds the limit too
            20,
            id="past-its-limit",
        ),
        pytest.param(
            OPEN,
            {"max_tokens": 2, "thinking_tokens": 3},
            [("abc", 4, None), ("d", 5, "length")],
            "abc\n</think>\n\n",
            2,
            id="thought-took-all",
        ),
        pytest.param(
            OPEN,
            BOUNDED,
            [("a<|im_<|im_end|>end|></think", 9, "stop")],
            "a<|im_‹|im_end|>end|></think\n</think>\n\n",
            20,
            id="marks-in-the-thought",
        ),
        pytest.param(
            OPEN, JSON, [("hm</think>", 3, None)], "hm\n</think>\n\n", 509, id="form-behind-a-thought"
        ),
        pytest.param(
            PLAIN, JSON, [("<", 1, None), ("b>", 2, None)], "", 510, id="form-without-thought"
        ),
    ],
)
def test_an_answer_without_text_takes_a_second_call(
    prompt: str, sampling: dict[str, Any], pieces: list[Piece], between: str, room: int
) -> None:
    reader = THINK.reader(Sampling(**sampling), prompt)
    text, _, finish = reads(reader, *pieces)
    assert (text, finish, reader.is_unanswered) == ("", None, True)
    assert (reader.before_answer, reader.room) == (between, room)
    before = reader.written
    reader.begin_second(3)
    assert (reader.is_unanswered, reader.written) == (False, before + 3)
    assert reads(reader, ("Four", before + 4, None), (".", before + 5, "stop")) == ("Four.", "", "stop")


@pytest.mark.parametrize(
    ("prompt", "sampling", "pieces", "expected"),
    [
        pytest.param(OPEN, BOUNDED, [("hm</think>4", 3, "stop")], ("4", "hm", "stop"), id="answered"),
        pytest.param(OPEN, BOUNDED, [("hm", 3, "length")], ("", "hm", "length"), id="context-is-full"),
        pytest.param(
            OPEN, {"max_tokens": 3}, [("hm", 3, "length")], ("", "hm", "length"), id="no-room"
        ),
        pytest.param(OPEN, {"max_tokens": 3}, [("hm", 3, "stop")], ("", "hm", "stop"), id="none-left"),
        pytest.param(CLOSED, {}, [("\n", 1, "stop")], ("\n", "", "stop"), id="did-not-think"),
        pytest.param(CLOSED, JSON, [("{}", 2, "stop")], ("{}", "", "stop"), id="form-cannot-think"),
    ],
)
def test_other_answers_end_with_their_call(
    prompt: str, sampling: dict[str, Any], pieces: list[Piece], expected: tuple[str, str, str]
) -> None:
    reader = THINK.reader(Sampling(**sampling), prompt)
    assert reads(reader, *pieces) == expected
    assert not reader.is_unanswered


def test_there_is_no_third_call() -> None:
    reader = THINK.reader(Sampling(max_tokens=9, thinking_tokens=10), OPEN)
    reads(reader, ("a", 2, "stop"))
    reader.begin_second(0)
    assert reads(reader, ("<think>b", 4, "stop")) == ("", "b", "stop")
    assert not reader.is_unanswered


def test_the_answer_of_the_second_call_has_its_own_limit() -> None:
    reader = THINK.reader(Sampling(max_tokens=2, thinking_tokens=10), OPEN)
    reads(reader, ("a", 2, "stop"))
    reader.begin_second(3)
    assert reads(reader, ("It", 6, None), (" is", 7, None)) == ("It is", "", "length")
    assert reader.written == 7


def test_without_families_all_is_text() -> None:
    plain = ChatMarks((), (), ()).reader(Sampling(max_tokens=1, thinking_tokens=4), OPEN)
    assert reads(plain, ("<think>", 1, None)) == ("<think>", "", "length")


def test_blank_characters_are_those_that_strip_removes() -> None:
    assert {chr(n) for n in range(0x110000) if not chr(n).strip()} == set(BLANK)
