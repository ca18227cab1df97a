"""`slimmoa --version`."""

import platform
from importlib.metadata import PackageNotFoundError, version

import pytest
from typer.testing import CliRunner

from cli import versions
from cli.main import app


def test_the_versions_that_a_report_of_a_fault_needs() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0] == f"slimmoa {version('slimmoa')}"
    assert lines[1].startswith(f"Python {platform.python_version()} on ")
    assert lines[2] == f"Ray {version('ray')}"
    assert lines[3] == f"llama.cpp (xllamacpp) {version('xllamacpp')}"


def test_vllm_for_cpus_is_vllm_and_an_engine_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(package: str) -> str:
        if package in ("vllm", "xllamacpp"):
            raise PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr(versions, "version", installed)
    lines = list(versions.version_lines())
    assert lines[3:] == ["llama.cpp (xllamacpp) is not installed", "vLLM 1.2.3"]
