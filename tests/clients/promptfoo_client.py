"""A user's evaluations with promptfoo; prints what they found as JSON.

Arguments: the command of promptfoo.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CASES: dict[str, Any] = json.loads(os.environ["CASES"])
HOME = tempfile.TemporaryDirectory()
QUIET = {
    "PROMPTFOO_CONFIG_DIR": HOME.name,
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
}


def provider(label: str, name: str, key: str = CASES["key"], **config: Any) -> dict[str, Any]:
    access = {"apiBaseUrl": CASES["url"], "apiKey": key}
    return {"id": f"openai:{name}", "label": label, "config": access | config}


def evaluated(*providers: dict[str, Any], said: str = "hello") -> dict[str, Any]:
    """What promptfoo writes of each provider: the output or the error, the tokens and the headers."""
    config = {
        "prompts": ["{{said}}"],
        "providers": providers,
        "tests": [
            {"vars": {"said": said}, "assert": [{"type": "javascript", "value": "output.length > 50"}]}
        ],
    }
    path, found = Path(HOME.name, "config.json"), Path(HOME.name, "found.json")
    path.write_text(json.dumps(config))
    command: list[str | Path] = [
        *sys.argv[1:],
        "eval",
        "-c",
        path,
        "-o",
        found,
        "--no-cache",
        "--no-progress-bar",
    ]
    subprocess.run(command, env=os.environ | QUIET, stdout=subprocess.DEVNULL, timeout=100, check=False)
    results = json.loads(found.read_text())["results"]["results"]
    return {result["provider"]["label"]: _told(result) for result in results}


def _told(result: dict[str, Any]) -> list[Any]:
    response = result.get("response") or {}
    headers = response.get("metadata", {}).get("http", {}).get("headers", {})
    total = response.get("tokenUsage", {}).get("total")
    return [
        result["success"],
        response.get("output"),
        total,
        headers.get("x-slimmoa-degraded"),
        result.get("error"),
    ]


def main() -> None:
    version = subprocess.run([*sys.argv[1:], "--version"], capture_output=True, text=True, check=False)
    answers = evaluated(
        provider("chat", "chat:mix"),
        provider("responses", "responses:mix"),
        provider("answer alone", "responses:mix", passthrough={"moa": {"events": False}}),
    )
    report = {
        "client": f"promptfoo {version.stdout.split()[-1]}",
        "answers": answers
        | evaluated(provider("degraded", "chat:mix"), said=CASES["long"][0]["content"]),
        # promptfoo ends an evaluation at the first of these.
        "errors": {
            **evaluated(provider("unknown", "chat:nobody")),
            **evaluated(provider("broken", "chat:broken")),
            **evaluated(provider("key", "chat:mix", key="wrong")),
            **evaluated(provider("form", "chat:mix", response_format={"type": "json_object"})),
            **evaluated(provider("overflow", "chat:mix"), said=CASES["overflow"][0]["content"]),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
