"""Every error of people at a terminal has one base, so that no command can forget one."""

import ast
from pathlib import Path

import pytest
import typer

from cli.console import exit_on_user_error
from cluster.plan.planner import DoesNotFit
from configs.errors import EngineError, UserError
from configs.load import RecipeError
from jobs.store import StoreError

ROOT = Path(__file__).parents[3]
ROOMS = ("actors", "cli", "cluster", "configs", "jobs", "serve_app")
BUILTIN = {"Exception", "ValueError", "RuntimeError", "OSError", "LookupError", "KeyError"}
CAUGHT_INSIDE = {
    "BadConfig": "cluster/plan/checkpoint.py gives an UnknownCheckpoint",
    "BadDocument": "configs/load.py gives a RecipeError",
    "BadFrame": "the connection is closed",
    "CardFull": "actors/replica.py gives an EngineUnavailable",
    "EventTooLong": "the HTTP engine gives an EngineError",
    "Fault": "the HTTP engine gives the error that its status and words stand for",
    "FaultyAnswer": "jobs/generate.py stores the row as failed",
    "NativeFailure": "the llama.cpp engine gives an EngineError",
    "NoGpu": "cluster/cards/detect.py takes the CPU, with a remark",
    "NotGguf": "cluster/plan/checkpoint.py gives an UnknownCheckpoint",
    "NotSafetensors": "cluster/plan/checkpoint.py gives an UnknownCheckpoint",
    "NvmlFailed": "cluster/cards/detect.py gives an UnusableGpu",
    "RequestError": "the base of the other tree",
    "Unheld": "configs/held_schemas.py gives its words to a BadRequest",
    "UserError": "the base",
}


def test_no_public_error_stands_outside_of_the_two_trees() -> None:
    outside = {
        node.name
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and {base.id for base in node.bases if isinstance(base, ast.Name)} & BUILTIN
    }
    assert outside <= set(CAUGHT_INSIDE)


@pytest.mark.parametrize(
    "error",
    [
        UserError("mend this"),
        RecipeError("mend this"),
        DoesNotFit("mend this"),
        StoreError("mend this"),
        EngineError("mend this"),
        FileNotFoundError("mend this"),
    ],
)
def test_a_command_prints_the_message_and_exits_with_1(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, exit_on_user_error():
        raise error
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "error: mend this\n"


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        raise ZeroDivisionError
