"""`slimmoa models --fetch` and a plan in the environment of a user who has nothing yet.

Each command is a process of its own, with the real client of the Hub, against a Hub on this machine.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.unit.fake_hub import TOKEN, FakeRepo, checkpoint, serve_hub

ROOT = Path(__file__).parents[2]
RECIPE = """
name: mix
models:
  one: {engine: vllm, weights: [{hub: o/n}], context_tokens: 4096}
  two: {engine: vllm, weights: [{hub: o/gated}], context_tokens: 4096}
layers: [{proposers: [{model: one}]}]
aggregator: {model: two}
"""
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_a_user_fetches_folders_and_plans_without_a_network(tmp_path: Path) -> None:
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(RECIPE)

    def slimmoa(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", arguments[0], str(recipe), *arguments[1:]],
            capture_output=True,
            text=True,
            env=hub.environment(tmp_path) | {"COLUMNS": "200"} | environment,
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    with serve_hub() as hub:
        hub.repos["o/n"] = FakeRepo(checkpoint(size=2_000_000))
        hub.repos["o/gated"] = FakeRepo(checkpoint(size=3_000_000), gated=True)
        refused = slimmoa("models", "--fetch")
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert line.endswith("/o/gated, then run `hf auth login`")
        fetched = slimmoa("models", "--fetch", HF_TOKEN=TOKEN)
        assert fetched.returncode == 0, fetched.stderr
        assert "two needs 6.0 MB from the Hub (o/gated)" in fetched.stderr
        rows = {line.split()[0]: line for line in fetched.stdout.splitlines()[1:]}
        assert "4.0 MB here" in rows["one"]
        assert "6.0 MB here" in rows["two"]
        assert {*hub.sent} == {hub.large(name, shard) for name in hub.repos for shard in SHARDS}
    planned = slimmoa("plan", "--card", "RTX-4090", "--json")
    assert planned.returncode == 0, planned.stderr
    assert all(weights["here"] for weights in json.loads(planned.stdout)["weights"].values())
    again = slimmoa("models", "--fetch")
    assert (again.returncode, again.stderr) == (0, "")
