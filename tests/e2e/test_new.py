"""`slimmoa new` and the commands that follow, in the environment of a user who has nothing yet."""

import subprocess
import sys
from pathlib import Path

from tests.unit.fake_hub import FakeRepo, checkpoint, gguf_file, serve_hub

ROOT = Path(__file__).parents[2]


def test_two_ids_become_a_recipe_that_is_planned_and_fetched(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"

    def slimmoa(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", command, str(recipe), *arguments],
            capture_output=True,
            text=True,
            env=hub.environment(tmp_path) | {"COLUMNS": "200"},
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    with serve_hub() as hub:
        hub.repos["o/folder"] = FakeRepo(checkpoint(size=2_000_000))
        hub.repos["o/file-GGUF"] = FakeRepo({"file-Q4_K_M.gguf": gguf_file()})
        typo = slimmoa("new", "o/folder", "o/fle-GGUF", "--card", "RTX-4090")
        assert (typo.returncode, typo.stdout) == (1, "")
        assert typo.stderr.startswith("error: o/fle-GGUF: the Hub has no repository o/fle-GGUF")
        assert not recipe.exists()
        written = slimmoa("new", "o/folder", "o/file-GGUF", "--card", "RTX-4090")
        assert written.returncode == 0, written.stderr
        assert "folder, file propose, file aggregates" in written.stderr
        fetched = slimmoa("models", "--fetch")
        assert fetched.returncode == 0, fetched.stderr
    planned = slimmoa("plan", "--card", "RTX-4090")  # the Hub is gone
    assert planned.returncode == 0, planned.stderr
    assert "not here yet" not in planned.stdout
