"""Prompts and answers in the shapes in which tools of the field write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Message
from jobs.records import Row
from jobs.sets import SetError, load_set
from jobs.sets.outputs import ImportSummary, import_outputs
from jobs.store import Store
from tests.unit.jobs.sets.set_files import write_file

Entries = Sequence[dict[str, Any]]


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def user(content: Any) -> dict[str, Any]:
    return message("user", content)


def fastchat(question: int | str, *turns: Any) -> dict[str, Any]:
    """An answer as FastChat writes it."""
    choices = [{"index": 0, "turns": list(turns)}, {"index": 1, "turns": ["not used"] * len(turns)}]
    names = {"question_id": question, "answer_id": "x", "model_id": "m"}
    return {**names, "choices": choices, "tstamp": 1.5}


def arena_hard(uid: str, prompt: str, answer: Any) -> dict[str, Any]:
    """An answer as Arena-Hard writes it today."""
    said = [user(prompt), message("assistant", answer)]
    return {"uid": uid, "ans_id": "x", "model": "m", "messages": said, "tstamp": 1.5, "metadata": {}}


def sample(doc: int, prompt: Any, response: str, applied: str = "none") -> dict[str, Any]:
    """A sample as lm-eval writes it with --log_samples."""
    return {
        "doc_id": doc,
        "doc": {"question": "?"},
        "target": "right",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"]}}},
        "resps": [[response]],
        "filtered_resps": [response],
        "filter": applied,
    }


def reply(name: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """A line of an output file of OpenAI's batch API; without a body, of a request that failed."""
    response = None if body is None else {"status_code": 200, "body": body}
    return {
        "id": "b",
        "custom_id": name,
        "response": response,
        "error": None if body else {"code": "x"},
    }


CHAT = json.dumps([user("Q0")])
MT_BENCH = [
    {"question_id": 81, "category": "writing", "turns": ["a", "b"]},
    {"question_id": 82, "category": "math", "turns": ["c", "d"], "reference": ["r", "s"]},
]
ARENA = [{"uid": name, "category": "hard_prompt", "prompt": f"p{name}"} for name in "xy"]
BATCH = [
    {
        "custom_id": "r1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [message("developer", "s"), user([{"type": "text", "text": "hi"}])]},
    },
    {"custom_id": "r2", "url": "/v1/responses", "body": {"input": "I", "instructions": "s"}},
]
BEFORE = (Message(role="system", content="s"),)
SHARE_GPT = [
    {"id": "x_0", "conversations": [{"from": who, "value": text} for who, text in said]}
    for said in [(("human", "h1"), ("gpt", "g1"), ("human", "h2"), ("gpt", "g2"))]
]
SHARE_GPT_BEFORE = (Message(role="user", content="h1"), Message(role="assistant", content="g1"))


@pytest.mark.parametrize(
    ("entries", "rows"),
    [
        (
            MT_BENCH,
            [
                Row(0, ("a", "b"), category="writing", id=81, temperature=0.7),
                Row(1, ("c", "d"), (), "", "math", ("r", "s"), 82, 0.0),
            ],
        ),
        (
            [{"question_id": 1, "turns": ["a"], "required_temperature": 0.2}],
            [Row(0, ("a",), id=1, temperature=0.2)],
        ),
        (ARENA, [Row(n, (f"p{x}",), category="hard_prompt", id=x) for n, x in enumerate("xy")]),
        (BATCH, [Row(0, ("hi",), BEFORE, id="r1"), Row(1, ("I",), BEFORE, id="r2")]),
        (SHARE_GPT, [Row(0, ("h2",), SHARE_GPT_BEFORE, references=("g2",), id="x_0")]),
        (
            [{"conversation": [user("wild"), message("assistant", "chat")]}],
            [Row(0, ("wild",), references=("chat",))],
        ),
        (
            [{"messages": [user("tune"), message("assistant", "answer")]}],
            [Row(0, ("tune",), references=("answer",))],
        ),
        (
            [{"row_idx": 7, "row": {"prompt": "viewed", "reference": 12}, "truncated_cells": []}],
            [Row(0, ("viewed",), references=("12",))],
        ),
        (
            [sample(0, "Q0", "A", "strict"), sample(0, "Q0", "A", "loose"), sample(1, "Q1", "B")],
            [Row(n, (f"Q{n}",), references=("right",), id=n) for n in (0, 1)],
        ),
        ([sample(5, [CHAT], "A")], [Row(0, ("Q0",), references=("right",), id=5)]),
    ],
    ids=[
        "mt_bench",
        "required_temperature",
        "arena_hard",
        "openai_batch",
        "sharegpt",
        "wildchat",
        "fine-tuning",
        "viewer",
        "lm_eval",
        "lm_eval_chat",
    ],
)
def test_a_set_can_be_asked(tmp_path: Path, entries: Entries, rows: list[Row]) -> None:
    path = write_file(tmp_path, "s.jsonl", "\n".join(map(json.dumps, entries)))
    assert list(load_set(path).rows) == rows


def test_conversations_without_a_question_are_left_out_and_counted(tmp_path: Path) -> None:
    said: list[list[tuple[str, str]]] = [[], [("human", "a"), ("gpt", "b")], [("gpt", "alone")]]
    said.append([("human", "c")])
    lines = [{"conversations": [{"from": w, "value": v} for w, v in each]} for each in said]
    loaded = load_set(write_file(tmp_path, "s.jsonl", "\n".join(map(json.dumps, lines))))
    assert [(row.index, row.turns) for row in loaded.rows] == [(1, ("a",)), (3, ("c",))]
    assert (loaded.count, loaded.left_out) == (2, 2)
    with Store.open(tmp_path / "run") as store:
        store.add_rows(loaded.rows)
        assert import_outputs(store, tmp_path / "s.jsonl", "g") == ImportSummary(2, 1, (3,), 0, 1)


MULTIPLE_CHOICE = {
    **sample(0, "Q", "A"),
    "arguments": {f"gen_args_{n}": {"arg_0": "Q", "arg_1": f" {n}"} for n in range(2)},
}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (MULTIPLE_CHOICE, "line 1: this sample of lm-eval is a multiple choice"),
        ({"custom_id": "r", "body": {"model": "m"}}, "the batch request asks no chat"),
        ({"messages": [user([{"type": "image_url"}])]}, "a part of a message is 'image_url'"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "the speaker 'tool' is not one of human"),
        ({"conversations": ["x"]}, "a message has a speaker and a text; it is 'x'"),
        ({"prompt": "a", "required_temperature": "hot"}, "'required_temperature' must be a number"),
    ],
    ids=["choice", "embedding", "image", "tool", "no message", "hot"],
)
def test_what_cannot_be_asked_says_why(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SetError, match=message):
        load_set(write_file(tmp_path, "s.jsonl", json.dumps(entry)))


@pytest.mark.parametrize(
    ("entries", "outputs", "answers"),
    [
        (MT_BENCH, [fastchat(82, "C", "D"), fastchat(81, "A", "B")], [("A", "B"), ("C", "D")]),
        (
            ARENA,
            [fastchat("y", {"content": "Y", "token_len": 1}), fastchat("x", "X")],
            [("X",), ("Y",)],
        ),
        (
            ARENA,
            [arena_hard("y", "py", {"thought": "hm", "answer": "Y"}), arena_hard("x", "px", "X")],
            [("X",), ("Y",)],
        ),
        (
            BATCH,
            [
                reply("r2", {"output": [{"content": [{"type": "output_text", "text": "T"}]}]}),
                reply("r1", {"choices": [{"message": message("assistant", "hello")}]}),
            ],
            [("hello",), ("T",)],
        ),
        (SHARE_GPT, SHARE_GPT, [("g2",)]),
        (
            [sample(0, "Q0", "A0"), sample(1, "Q1", "A1")],
            [sample(1, "Q1", "A1", "f"), sample(0, "Q0", "A0", "f"), sample(0, "Q0", "A0", "g")],
            [("A0",), ("A1",)],
        ),
        ([sample(5, [CHAT], "A")], [sample(5, [CHAT], "A")], [("A",)]),
        (
            [{"prompt": "a"}],
            [{"row": 0, "id": None, "generator": "g", "turns": ["a"], "answers": ["A"]}],
            [("A",)],
        ),
    ],
    ids=[
        "fastchat",
        "arena_hard_turns",
        "arena_hard",
        "openai_batch",
        "sharegpt",
        "lm_eval",
        "lm_eval_chat",
        "our jsonl",
    ],
)
def test_answers_find_their_rows(
    tmp_path: Path, entries: Entries, outputs: Entries, answers: list[tuple[str, ...]]
) -> None:
    loaded = load_set(write_file(tmp_path, "s.jsonl", "\n".join(map(json.dumps, entries))))
    with Store.open(tmp_path / "run") as store:
        store.add_rows(loaded.rows)
        path = write_file(tmp_path, "o.jsonl", "\n".join(map(json.dumps, outputs)))
        assert import_outputs(store, path, "g") == ImportSummary(len(answers), len(answers), (), 0, 0)
        found = [(answer.row, answer.turn, answer.text) for answer in store.answers("g")]
    assert found == [(r, t, text) for r, texts in enumerate(answers) for t, text in enumerate(texts)]


def test_what_failed_in_a_batch_is_missing(tmp_path: Path) -> None:
    loaded = load_set(write_file(tmp_path, "s.jsonl", "\n".join(map(json.dumps, BATCH))))
    body = {"choices": [{"message": message("assistant", "hello")}]}
    lines = [reply("r1", body), reply("r2", None)]
    with Store.open(tmp_path / "run") as store:
        store.add_rows(loaded.rows)
        path = write_file(tmp_path, "o.jsonl", "\n".join(map(json.dumps, lines)))
        assert import_outputs(store, path, "g") == ImportSummary(2, 1, (1,), 0, 1)


def test_answers_to_more_turns_than_a_row_has_are_refused(tmp_path: Path) -> None:
    loaded = load_set(write_file(tmp_path, "s.jsonl", json.dumps(MT_BENCH[0])))
    path = write_file(tmp_path, "o.jsonl", json.dumps(fastchat(81, "A", "B", "C")))
    with Store.open(tmp_path / "run") as store:
        store.add_rows(loaded.rows)
        with pytest.raises(SetError, match="line 1 answers 3 turns; row 0 has 2: 'a'"):
            import_outputs(store, path, "g")
        assert store.generators() == []
