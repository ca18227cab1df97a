"""Takes the pictures of the page in docs/screenshots anew, in a headless browser over scripted models.

Run `make screenshots`, and look at them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.e2e.browser.installed import install_browser, run_node

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
COLOURS = 128
"""Colours of a picture. The page has few, so that nobody sees the difference, and the file is small."""


def main() -> None:
    """Take all pictures."""
    command = [sys.executable, "-m", "tests.e2e.browser.page_server"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        assert server.stdout is not None
        run_node(install_browser(), "node", "shoot.mjs", server.stdout.readline(), folder)
        server.communicate(timeout=20)
        FOLDER.mkdir(exist_ok=True)
        for taken in sorted(Path(folder).glob("*.png")):
            picture = Image.open(taken).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            picture.save(FOLDER / taken.name, optimize=True)
            print(f"{FOLDER / taken.name}: {(FOLDER / taken.name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
