"""The default recipe with real weights, and environments with tools that others evaluate it with."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from configs.load import load
from tests.conftest import Endpoint, Serving

Run = Callable[..., str]


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    recipe = load("tiny_cpu")
    if url := os.environ.get("TOOLS_URL"):
        yield Endpoint(recipe, url)
        return
    serving: Serving = request.getfixturevalue("serving")
    with serving(recipe) as served:
        yield served


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a command of a tool, which is installed once into the user's cache."""

    def run_tool(requirements: str, *command: str, cwd: Path, fails: bool = False, **env: str) -> str:
        digest = hashlib.sha256(f"{sys.version}{requirements}".encode()).hexdigest()[:12]
        folder = user_cache_path("slimmoa") / f"tool-{digest}"
        installed = folder / "installed"
        if not installed.is_file():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *requirements.split()], check=True)
            installed.touch()
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **env}
        done = subprocess.run(
            [str(folder / "bin" / command[0]), *command[1:]],
            cwd=cwd,
            env=os.environ | offline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert fails == bool(done.returncode), done.stdout[-3000:]
        return done.stdout

    return run_tool
