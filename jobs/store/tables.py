"""Conversions between the plain data of a run and the rows of its SQL tables.

Each table has a list of its columns and up to two functions: `..._to_sql` returns the values of those
columns, `..._from_sql` rebuilds the object. A list of values becomes JSON text, an empty list NULL.
"""

import json
from collections.abc import Iterable
from typing import Any

from actors.engine import Delta
from jobs.records import Answer, Failure, Generator, Progress, Row, StoredCall, UsedCall, Verdict

SqlRow = tuple[Any, ...]
"""One row of an SQL table or query result. (A `Row` is a prompt of a set.)"""

ROW = "idx, turns, before, dataset, category, reference_answers, id, temperature"
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
    """A question mark for each of the comma-separated columns, as the parameters of an INSERT."""
    return ", ".join("?" * len(columns.split(",")))


def pack(values: Iterable[Any]) -> str | None:
    """A list as JSON text; None if it is empty."""
    listed = list(values)
    return json.dumps(listed, ensure_ascii=False) if listed else None


def unpack(text: str | None) -> tuple[Any, ...]:
    """The values that `pack` packed."""
    return tuple(json.loads(text)) if text else ()


def row_to_sql(row: Row) -> SqlRow:
    texts = (pack(row.turns), pack(row.before))
    own_id = None if row.id is None else json.dumps(row.id, ensure_ascii=False)
    added = (pack(row.references), own_id, row.temperature)
    return row.index, *texts, row.dataset, row.category, *added


def row_from_sql(sql_row: SqlRow) -> Row:
    index, turns, before, dataset, category, references, own_id, temperature = sql_row
    texts = (unpack(turns), unpack(before), dataset, category, unpack(references))
    return Row(index, *texts, None if own_id is None else json.loads(own_id), temperature)


def call_to_sql(call: StoredCall) -> SqlRow:
    whole = call.whole
    tokens = (whole.prompt_tokens, whole.completion_tokens)
    output = (whole.text, whole.reasoning, whole.finish_reason)
    return call.key, call.model, call.seed, *output, *tokens, pack(whole.logprobs), whole.engine_s


def call_from_sql(sql_row: SqlRow) -> StoredCall:
    key, model, seed, text, reasoning, finish_reason, *tokens, logprobs, engine_s = sql_row
    prompt_tokens, completion_tokens = tokens
    whole = Delta(
        text,
        reasoning,
        finish_reason,
        prompt_tokens,
        completion_tokens,
        unpack(logprobs),
        engine_s,
    )
    return StoredCall(key, model, seed, whole)


def answer_to_sql(answer: Answer) -> SqlRow:
    """The values of the columns in ANSWER, without the generator's number, which the caller adds."""
    missing = pack(dict(each) for each in answer.missing)
    ending = (answer.finish_reason, answer.seconds, answer.at)
    return answer.row, answer.turn, answer.text, missing, *ending


def answer_from_sql(generator: str, sql_row: SqlRow, used: tuple[UsedCall, ...]) -> Answer:
    row, turn, text, missing, *ending = sql_row
    return Answer(generator, row, turn, text, used, unpack(missing), *ending)


def generator_to_sql(generator: Generator) -> SqlRow:
    about = json.dumps(dict(generator.about), ensure_ascii=False)
    return generator.name, generator.kind, generator.identity, about


def generator_from_sql(sql_row: SqlRow) -> Generator:
    name, kind, identity, about = sql_row
    return Generator(name, kind, identity, json.loads(about))


def failure_to_sql(failure: Failure) -> SqlRow:
    failed = (failure.stage, failure.generator, failure.row)
    reason = (failure.cause, failure.detail, failure.attempts, failure.at)
    return *failed, *reason, failure.judge, failure.baseline, failure.turn


def verdict_to_sql(verdict: Verdict) -> SqlRow:
    pair = (verdict.judge, verdict.kind, verdict.generator, verdict.baseline)
    judgement = (verdict.value, verdict.cause, verdict.switched, verdict.call)
    return *pair, verdict.row, verdict.turn, *judgement


def verdict_from_sql(sql_row: SqlRow) -> Verdict:
    judge, kind, generator, baseline, row, turn, value, cause, switched, call = sql_row
    pair = (judge, kind, generator, baseline)
    return Verdict(*pair, row, turn, value, cause, bool(switched), call)


def progress_to_sql(progress: Progress) -> SqlRow:
    done = (progress.rows, progress.failed, progress.tokens)
    return progress.at, progress.generator, *done, progress.calls, progress.reused, progress.swaps
