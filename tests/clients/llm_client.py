"""A user's commands with Simon Willison's `llm`; prints what they printed as JSON."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
HOME = tempfile.TemporaryDirectory()
LLM = [str(Path(sys.executable).parent / "llm")]
"""The command of the environment that runs this program."""
MODELS = [
    {
        "model_id": name + suffix,
        "model_name": name,
        "api_base": CASES["url"],
        "api_key_name": "slimmoa",
        "supports_schema": True,
        "supports_tools": True,
        **more,
    }
    for name in ("mix", "nobody", "broken", "slow", "silent")
    for suffix, more in (("", {}), ("-responses", {"responses": True}))
]


def run(*words: str, key: str = CASES["key"], text: str | None = None) -> list[Any]:
    """What a command printed, and how it ended."""
    env = os.environ | {"LLM_USER_PATH": HOME.name}
    done = subprocess.run(
        [*LLM, *words, "--key", key],
        env=env,
        input=text or "",
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [done.returncode, done.stdout.strip(), done.stderr.strip().splitlines()[-1:]]


def leave() -> list[Any]:
    """End the command in the middle of an answer, as Ctrl+C does."""
    env = os.environ | {"LLM_USER_PATH": HOME.name}
    command = [*LLM, "-m", "slow", "hello", "--key", CASES["alone"]]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as writer:
        assert writer.stdout is not None
        read = writer.stdout.read(10)
        refused = run("-m", "mix", "hello", key=CASES["alone"])
        writer.send_signal(signal.SIGINT)
    time.sleep(0.1)
    return [len(read), refused, run("-m", "mix", "hello", key=CASES["alone"])]


def main() -> None:
    Path(HOME.name, "extra-openai-models.yaml").write_text(json.dumps(MODELS))
    Path(HOME.name, "keys.json").write_text(json.dumps({"slimmoa": CASES["key"]}))
    long = CASES["long"][0]["content"]
    overflow = CASES["overflow"][0]["content"]
    endpoint = ("openai", "endpoint", CASES["url"])
    report = {
        "client": subprocess.run([*LLM, "--version"], capture_output=True, text=True).stdout.strip(),
        "models": run(*endpoint, "--models")[1].splitlines(),
        "whole": run("-m", "mix", "hello", "--no-stream"),
        "stream": run("-m", "mix", "hello"),
        "again": run("-c", "-m", "mix", "and now?"),
        "endpoint": run(*endpoint, "hello", "-m", "mix"),
        "responses": run("-m", "mix-responses", "hello"),
        "responses again": run("-c", "-m", "mix-responses", "and now?"),
        "degraded": run("-m", "mix", text=long),
        "busy": leave(),
        "errors": {
            "unknown": run("-m", "nobody", "hello"),
            "broken": run("-m", "broken", "hello"),
            "key": run("-m", "mix", "hello", key="wrong"),
            "overflow": run("-m", "mix", text=overflow),
            "form": run("-m", "mix", "hello", "--schema", "town str"),
            "tools": run("-m", "mix", "hello", "-T", "llm_time"),
            "stream": CASES["silent"] and run("-m", "silent", "hello"),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
