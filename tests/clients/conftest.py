"""A served mixture for the clients that users bring, and an environment with these clients.

The clients are installed once into the user's cache, in fixed versions: LangChain and LiteLLM bring
0.4 GB and versions of their own.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path

from configs.schema import Recipe
from tests.conftest import Endpoint, Serving

HERE = Path(__file__).parent
MODELS = ["quick", "broken", "writer"]
RECIPE: dict[str, Any] = {
    "name": "mix",
    "models": {
        "quick": {"engine": "scripted", "tokens": 8},
        "broken": {"engine": "scripted", "fail_share": 1},
        "writer": {"engine": "scripted", "tokens": 20, "token_s": 0.005},
    },
    "layers": [{"proposers": [{"model": "quick", "samples": 2}]}],
    "aggregator": {"model": "writer", "sampling": {"max_tokens": 64}},
}


@pytest.fixture(scope="session")
def endpoint(serving: Serving) -> Iterator[Endpoint]:
    with serving(Recipe.model_validate(RECIPE)) as served:
        yield served


def _folder(kind: str, *sources: str) -> Path:
    """A folder of the cache that is another one whenever its sources or this Python change."""
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        digest.update((HERE / source).read_bytes())
    return user_cache_path("slimmoa") / f"{kind}-{digest.hexdigest()[:12]}"


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that has the clients of requirements.txt."""
    folder = _folder("clients", "requirements.txt")
    installed = folder / "installed"
    if not installed.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # half of an earlier try
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=60)
        quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        command = [*pip, "-r", str(HERE / "requirements.txt")]
        subprocess.run(command, env=quiet, check=True, timeout=540)
        installed.touch()
    return str(folder / "bin" / "python")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A folder with the package of package.json, for a script beside it."""
    if shutil.which("npm") is None:
        pytest.skip("OpenAI's JavaScript client needs node and npm")
    sources = ("package.json", "package-lock.json", "openai_client.mjs")
    folder = _folder("clients-js", *sources)
    # npm writes this file last.
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copy(HERE / source, folder)
        npm = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(npm, cwd=folder, check=True, timeout=240)
    return folder
