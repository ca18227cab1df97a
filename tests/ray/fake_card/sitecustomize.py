"""Python runs this at the start of every process that has this folder on PYTHONPATH.

It puts `card_engine.py` in the place of the scripted engine, so that models of a recipe with
`engine: scripted` take memory of the fake card, fall asleep and wake.
"""

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != "actors.engines.scripted":
            return None
        return spec_from_file_location(name, Path(__file__).with_name("card_engine.py"))


if "FAKE_CARD" in os.environ:
    sys.meta_path.insert(0, _Finder())
