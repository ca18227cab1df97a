"""Applications with scripted models, for tests of whole jobs without a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from configs.schema import Recipe
from jobs.model_app import ModelApp, SwapCounter
from tests.unit.jobs.answering import says
from tests.unit.scripts import FakeModels


@dataclass
class Apps:
    """Applications whose models follow a script, in place of those on a cluster."""

    models: FakeModels = field(default_factory=lambda: FakeModels(dict.fromkeys("abcyz", says)))

    events: list[str] = field(default_factory=list)
    """Which folders' applications were opened and closed, in order."""

    refuses: Exception | None = None

    @contextmanager
    def open(
        self, asked: Recipe, folder: Path, *, in_flight: int, say: Callable[[str], None], **_: object
    ) -> Iterator[ModelApp]:
        if self.refuses is not None:
            raise self.refuses
        say("starting")
        self.events.append(f"open {folder.name} for {in_flight}")
        try:
            limits = dict.fromkeys(asked.models, 9)
            yield ModelApp(self.models, limits, SwapCounter([]))
        finally:
            self.events.append("close")
