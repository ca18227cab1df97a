"""What `slimmoa prove` refuses and says before it asks anything, and what it shows of a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from tests.unit.jobs.answering import recipe
from tests.unit.jobs.conftest import apps
from tests.unit.jobs.fake_apps import Apps

__all__ = ["apps"]


@pytest.fixture
def mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mix.yaml"
    file.write_text(yaml.safe_dump(recipe().model_dump(mode="json", exclude_defaults=True)), "utf-8")
    return str(file)


def a_set(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(file)


def test_answers_that_an_expression_does_not_find_are_refused_before_anything_is_asked(
    apps: Apps, mix: str, tmp_path: Path
) -> None:
    mine = a_set(tmp_path, {"question": "Capital of Australia?", "answer": "Canberra"})
    ran = CliRunner().invoke(app, ["prove", mix, "--set", mine, "--answer", "number"])
    assert ran.exit_code == 1
    assert "nothing is found by this in the right answers" in " ".join(ran.output.split())
    assert "'Canberra'" in ran.output
    assert not apps.models.asked


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "Say 3"}] * 30, "gives no right answers (a field `reference`, `answer`,"),
        ([{"question": "Say 3", "answer": 3}], "1 of 1 questions of mine.jsonl have a right answer"),
        ([{"question": "Who?", "answer": "Bob"}] * 30, "say where the answer stands by --answer"),
    ],
)
def test_a_calibration_without_enough_right_answers_asks_nothing(
    apps: Apps, mix: str, tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    a_set(tmp_path, *rows)
    ran = CliRunner().invoke(app, ["calibrate", mix, "mine.jsonl"])
    assert ran.exit_code == 1
    assert said in " ".join(ran.output.split())
    assert not apps.models.asked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--run-code"], "--run-code: programs that models wrote are never run here"),
        (["--judge-url", "http://x/v1"], "--judge-url needs --judge"),
        (["--judge", "z", "--answer", "number"], "but not both"),
        (
            ["--judge", "nobody"],
            "--judge: 'nobody' is not a model of the recipe (it has: a, b, c, y, z)",
        ),
        (["--answer", "number"], "gives no right answers (a field `reference`, `answer`,"),
        (["--answer", "("], "--answer: this is no regular expression of Python"),
        (["--answer", "numbers"], "do you mean number?"),
        (["--page"], "no run"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    mix: str, tmp_path: Path, options: list[str], said: str
) -> None:
    mine = a_set(tmp_path, {"question": "Say 3"})
    ran = CliRunner().invoke(app, ["prove", mix, "--set", mine, *options])
    assert ran.exit_code == 1
    assert said in " ".join(ran.output.split())


def test_missing_libraries_are_told_before_anything_is_asked(
    mix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.prove.LIBRARIES", ("json", "no_such_library"))
    ran = CliRunner().invoke(app, ["prove", mix])
    assert ran.exit_code == 1
    assert "prove needs no_such_library: pip install 'slimmoa[bench]'" in " ".join(ran.output.split())


def test_a_proof_is_told_in_words_and_as_json(apps: Apps, mix: str, tmp_path: Path) -> None:
    apps.models.scripts = dict.fromkeys("abcyz", ("It is 3.",))
    mine = a_set(tmp_path, *({"question": f"Say 3, {n}", "reference": 3} for n in range(3)))
    ran = CliRunner().invoke(app, ["prove", mix, "--set", mine, "--out", "run"])
    assert ran.exit_code == 0, ran.output
    assert "With these 3 questions nobody can tell" in ran.output
    assert "too few to show any difference" in ran.output
    assert (tmp_path / "run" / "proof.html").is_file()
    asked = len(apps.models.asked)
    a_set(tmp_path, *({"question": f"Say 3, {n}", "reference": 4 if n else 3} for n in range(3)))
    ran = CliRunner().invoke(app, ["prove", mix, "--set", mine, "--out", "run", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["ways"][0]["right"]["value"] == pytest.approx(1 / 3)
    assert len(apps.models.asked) == asked
    ran = CliRunner().invoke(app, ["prove", mix, "--out", "run", "--page", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["verdict"]["outcome"] == "open"
    assert len(apps.models.asked) == asked


def test_the_page_says_which_file_the_questions_are_from(apps: Apps, mix: str, tmp_path: Path) -> None:
    apps.models.scripts = dict.fromkeys("abcyz", ("It is 3.",))
    mine = a_set(tmp_path, {"question": "Say 3", "reference": 3}, {"question": "3?", "reference": 3})
    ran = CliRunner().invoke(app, ["prove", mix, "--set", mine, "--out", "run"])
    assert ran.exit_code == 0, ran.output
    page = (tmp_path / "run" / "proof.html").read_text("utf-8")
    assert "2 questions from your file mine.jsonl" in page
    assert str(tmp_path) not in page
