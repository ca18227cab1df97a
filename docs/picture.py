"""Draws README's picture: the terminal of `slimmoa ask` while the proposals of a real answer grow.

The script asks a running endpoint, shows the answer with the view of `slimmoa ask`, and keeps what the
view has on the screen at one moment: the first proposal is done, the second is partly written.

    slimmoa serve tiny_cpu                      (in another terminal)
    python -m docs.picture docs/images/ask.svg
"""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from rich.console import Console
from rich.text import Text

from cli.answer_view import AnswerView

URL = "http://127.0.0.1:8000/v1"
QUESTION = "Why is the sky blue?"
SEED = 4
"""Fixes the models' texts, so that the picture can be drawn again."""
COLUMNS = 84
"""Width of the terminal in characters: on a page it is still readable."""
ENOUGH_CHARACTERS = 170
"""How much of the second proposal is written when the picture is taken."""
REFRESH_S = 0.5
"""The view draws four times a second. After this wait it has drawn all text that came."""

SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Form of the SVG for `Console.export_svg`. rich's own form would load a font from a server."""


class Photographer:
    """Hands chunks on to a view, and keeps what the view shows at the moment of the picture."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._done = 0
        self._growing = ""
        self.picture: str | None = None
        """What stood on the screen, with its ANSI codes; None until the moment has come."""

    def watch(self, chunks: Iterable[ChatCompletionChunk]) -> Iterator[ChatCompletionChunk]:
        """The same chunks. When the view asks for the next chunk, it has shown the last."""
        for chunk in chunks:
            yield chunk
            self._note((chunk.model_extra or {}).get("moa") or {})
            if self.picture is None and self._done and len(self._growing) >= ENOUGH_CHARACTERS:
                time.sleep(REFRESH_S)
                with self._screen.capture() as capture:  # prints the moving part again, below this
                    self._screen.print(f'$ slimmoa ask "{QUESTION}"', markup=False, highlight=False)
                self.picture = capture.get()

    def _note(self, moa: dict[str, Any]) -> None:
        if moa.get("type") == "proposal.done":
            self._done += 1
            self._growing = ""
        elif moa.get("type") == "proposal.delta":
            self._growing += moa["text"]


def take() -> str:
    """Ask the question, and return what is on the screen at the moment of the picture."""
    screen = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=COLUMNS)
    photographer = Photographer(screen)
    client = OpenAI(base_url=URL, api_key="none")
    chunks = client.chat.completions.create(
        model=next(iter(client.models.list())).id,
        messages=[{"role": "user", "content": QUESTION}],
        seed=SEED,
        stream=True,
        extra_body={"moa": {"events": True}},
    )
    view = AnswerView(screen, Console(file=io.StringIO()), proposals=True)
    view.show(photographer.watch(chunks))
    if photographer.picture is None:
        raise SystemExit("no second proposal was written far enough; another SEED may do better")
    return photographer.picture


def draw(text: str) -> str:
    """An SVG of what a terminal shows. text: with ANSI codes."""
    paper = Console(file=io.StringIO(), record=True, width=COLUMNS)
    paper.print(Text.from_ansi(text))
    paper.print()  # rich gives the last line no clip path
    return paper.export_svg(title="slimmoa ask", code_format=SVG, unique_id="ask")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(take()), "utf-8")
