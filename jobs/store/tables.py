"""Our plain data as records of a run's tables, and back. Lists are JSON, NULL when they are empty."""

import json
from collections.abc import Iterable
from typing import Any

from actors.engine import Delta
from jobs.records import Answer, Failure, Generator, Progress, Row, StoredCall, Used, Verdict

Record = tuple[Any, ...]

ROW = "idx, turns, before, dataset, category, reference_answers"
CALL = (
    "key, model, seed, text, reasoning, finish_reason, prompt_tokens, completion_tokens, logprobs, "
    "engine_s"
)
ANSWER = "row, turn, text, missing, finish_reason, seconds, at"
FAILURE = "stage, generator, row, cause, detail, attempts, at, judge, baseline, turn"
GENERATOR = "name, kind, identity, about"
VERDICT = "judge, kind, generator, baseline, row, turn, value, cause, switched, call"
PROGRESS = "at, generator, rows, failed, tokens, calls, reused, swaps"


def marks(columns: str) -> str:
    """A question mark for each column."""
    return ", ".join("?" * len(columns.split(",")))


def packed(values: Iterable[Any]) -> str | None:
    """A list as JSON, None if it is empty."""
    listed = list(values)
    return json.dumps(listed, ensure_ascii=False) if listed else None


def unpacked(text: str | None) -> tuple[Any, ...]:
    return tuple(json.loads(text)) if text else ()


def row_record(row: Row) -> Record:
    references = packed(row.references)
    return row.index, packed(row.turns), packed(row.before), row.dataset, row.category, references


def row_of(record: Record) -> Row:
    index, turns, before, dataset, category, references = record
    return Row(index, unpacked(turns), unpacked(before), dataset, category, unpacked(references))


def call_record(call: StoredCall) -> Record:
    whole = call.whole
    tokens = (whole.prompt_tokens, whole.completion_tokens)
    said = (whole.text, whole.reasoning, whole.finish_reason)
    return call.key, call.model, call.seed, *said, *tokens, packed(whole.logprobs), whole.engine_s


def call_of(record: Record) -> StoredCall:
    key, model, seed, text, reasoning, finish_reason, asked, written, logprobs, engine_s = record
    whole = Delta(text, reasoning, finish_reason, asked, written, unpacked(logprobs), engine_s)
    return StoredCall(key, model, seed, whole)


def answer_record(answer: Answer) -> Record:
    missing = packed(dict(who) for who in answer.missing)
    how = (answer.finish_reason, answer.seconds, answer.at)
    return answer.row, answer.turn, answer.text, missing, *how


def answer_of(generator: str, record: Record, used: tuple[Used, ...]) -> Answer:
    row, turn, text, missing, *how = record
    return Answer(generator, row, turn, text, used, unpacked(missing), *how)


def generator_record(generator: Generator) -> Record:
    about = json.dumps(dict(generator.about), ensure_ascii=False)
    return generator.name, generator.kind, generator.identity, about


def generator_of(record: Record) -> Generator:
    name, kind, identity, about = record
    return Generator(name, kind, identity, json.loads(about))


def failure_record(failure: Failure) -> Record:
    who = (failure.stage, failure.generator, failure.row)
    what = (failure.cause, failure.detail, failure.attempts, failure.at)
    return *who, *what, failure.judge, failure.baseline, failure.turn


def verdict_record(verdict: Verdict) -> Record:
    pair = (verdict.judge, verdict.kind, verdict.generator, verdict.baseline)
    word = (verdict.value, verdict.cause, verdict.switched, verdict.call)
    return *pair, verdict.row, verdict.turn, *word


def verdict_of(record: Record) -> Verdict:
    judge, kind, generator, baseline, row, turn, value, cause, switched, call = record
    pair = (judge, kind, generator, baseline)
    return Verdict(*pair, row, turn, value, cause, bool(switched), call)


def progress_record(progress: Progress) -> Record:
    done = (progress.rows, progress.failed, progress.tokens)
    return progress.at, progress.generator, *done, progress.calls, progress.reused, progress.swaps
