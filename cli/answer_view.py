"""Shows a streamed answer in a terminal: first the proposals as they grow, then the answer itself.

The progress bars of downloads are here too.
"""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from openai.types.chat import ChatCompletionChunk
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.spinner import Spinner
from rich.text import Text

from actors.weights.download import DownloadProgress, gigabytes
from cluster.waiting import next_line_s, tell_waiting, waiting_line

TAIL_CHARACTERS = 200
"""How many characters of a growing proposal are shown; its end is shown."""


@dataclass(slots=True)
class _Proposal:
    """One proposal, as far as it has arrived."""

    model: str
    text: str = ""
    thinks: bool = False
    """Whether the model has begun to think, and has written no text yet."""
    outcome: str = ""
    """Tokens and seconds of a finished proposal, or why it was dropped; empty while it grows."""
    dropped: bool = False


class AnswerView:
    """Shows one streamed answer.

    1. The answer is always shown, and a note if the answer is degraded.
    2. If `console` is a terminal, a spinner shows that a stage is at work, and a last line tells the
       seconds and tokens of the answer.
    3. If `console` is a terminal and `proposals` is true, the proposals are shown too.

    Args:
        console: Receives what people watch: proposals, spinners, notes.
        out: Receives the answer's text and nothing else.
        proposals: Whether to show the proposals on a terminal.
    """

    def __init__(self, console: Console, out: Console, *, proposals: bool) -> None:
        self._console = console
        self._out = out
        self._moving = console.is_terminal
        self._waits = ExitStack()
        self._with_proposals = proposals and console.is_terminal
        self._layer: dict[int, _Proposal] = {}
        self._live: Live | None = None
        self._summary: dict[str, Any] | None = None
        self._total_tokens = 0

    def show(self, chunks: Iterable[ChatCompletionChunk]) -> str:
        """Show the chunks as they arrive, and return the answer's text."""
        answer: list[str] = []
        try:
            self._wait("the models")
            for chunk in chunks:
                if moa := (chunk.model_extra or {}).get("moa"):
                    self._note(moa)
                if chunk.usage is not None:
                    counted: Any = chunk.usage.to_dict()
                    self._total_tokens = counted.get("all_calls", counted)["total_tokens"]
                for choice in chunk.choices:
                    if choice.delta.content:
                        self._stop()
                        answer.append(choice.delta.content)
                        self._write(choice.delta.content)
        finally:
            self._stop()
            if answer:
                self._write("\n")
        self._footer()
        return "".join(answer)

    def _write(self, text: str) -> None:
        self._out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        self._out.file.flush()

    def _note(self, moa: dict[str, Any]) -> None:
        match moa["type"]:
            case "proposal.thinks":
                self._proposal(moa).thinks = True
            case "proposal.delta":
                proposal = self._proposal(moa)
                proposal.text += moa["text"]
                proposal.thinks = proposal.thinks and not proposal.text.strip()
            case "proposal.done":
                tokens, seconds = moa["completion_tokens"], moa["seconds"]
                proposal = self._proposal(moa)
                proposal.text, proposal.outcome = moa["text"], f"{tokens} tokens, {seconds:.1f} s"
            case "proposal.dropped":
                proposal = self._proposal(moa)
                proposal.outcome, proposal.dropped = f"{moa['cause']}: {moa['detail']}", True
            case "stage.done" if moa["stage"].startswith("layer"):
                self._layer_done(moa["stage"])
                return
            case "summary":
                self._summary = moa
                return
        self._refresh()

    def _proposal(self, moa: dict[str, Any]) -> _Proposal:
        return self._layer.setdefault(moa["place"], _Proposal(moa["model"]))

    def _layer_done(self, stage: str) -> None:
        self._stop()
        if self._with_proposals:
            for _, proposal in sorted(self._layer.items()):
                self._console.print(_panel(stage, proposal))
        self._layer = {}
        self._wait("the next stage, which reads the proposals,")

    def _wait(self, what: str) -> None:
        if not self._moving:
            say = partial(self._console.print, highlight=False, markup=False)
            self._waits.enter_context(tell_waiting(what, say))
        else:
            self._live = Live(
                Spinner("dots", f"waiting for {what}"), console=self._console, transient=True
            )
            self._live.start()

    def _refresh(self) -> None:
        if self._live is not None and self._layer and self._with_proposals:
            self._live.update(Group(*(_progress(p) for _, p in sorted(self._layer.items()))))

    def _stop(self) -> None:
        self._waits.close()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _footer(self) -> None:
        if (summary := self._summary) is None:
            return
        if summary["degraded"]:
            self._console.print(Text(f"degraded: {_why_degraded(summary)}", style="yellow"))
        if self._moving:
            seconds = sum(stage["seconds"] for stage in summary["stages"])
            tokens = f"{self._total_tokens} tokens in all"
            line = f"answered by {summary['answered_by']} in {seconds:.1f} s, {tokens}"
            if why := summary.get("why"):
                line += f"; {summary['method']}: {why}"
            self._console.print(Text(line, style="dim"))


def _progress(proposal: _Proposal) -> RenderableType:
    if proposal.outcome:
        mark, style = ("✗", "red") if proposal.dropped else ("✓", "green")
        return Text(f"{mark} {proposal.model}  {proposal.outcome}", style=style)
    tail = "thinks" if proposal.thinks else " ".join(proposal.text.split())[-TAIL_CHARACTERS:]
    return Group(Spinner("dots", Text(proposal.model, style="cyan")), Text(f"  {tail}", style="dim"))


def _panel(stage: str, proposal: _Proposal) -> Panel:
    body = Text("not used" if proposal.dropped else proposal.text)
    style = "red" if proposal.dropped else "cyan"
    title = Text(f"{stage}: {proposal.model}")
    return Panel(
        body, title=title, subtitle=Text(proposal.outcome), border_style=style, title_align="left"
    )


def _why_degraded(summary: dict[str, Any]) -> str:
    causes = [f"{m['model']} is missing ({m['cause']})" for m in summary["missing"]]
    if summary["fallback"]:
        causes.append(f"{summary['answered_by']} stood in for the aggregator")
    if unheld := summary.get("unheld"):
        causes.append(f"the answer may not keep {', '.join(unheld)}")
    if summary["cut"]:
        causes.append("the deadline cut the answer")
    return "; ".join(causes)


class DownloadBars:
    """One progress bar per download or checksum, for the time of a `with` block."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._console = console
        self._due: dict[str, tuple[float, float]] = {}
        """Where no terminal shows bars: when each download began, and when its next line is due."""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._bars.stop()

    def report(self, progress: DownloadProgress) -> None:
        """Show the progress of one download or checksum."""
        if progress.what not in self._tasks:
            self._tasks[progress.what] = self._bars.add_task(progress.what)
        total = progress.total_bytes or None
        self._bars.update(self._tasks[progress.what], completed=progress.done_bytes, total=total)
        if not self._console.is_terminal:
            self._say(progress)

    def _say(self, progress: DownloadProgress) -> None:
        now = time.monotonic()
        began, due = self._due.setdefault(progress.what, (now, now + next_line_s(0)))
        if now >= due:
            self._due[progress.what] = began, began + next_line_s(now - began)
            size = f" of {gigabytes(progress.total_bytes)}" if progress.total_bytes else ""
            done = f"{progress.what}, {gigabytes(progress.done_bytes)}{size},"
            self._console.print(waiting_line(done, now - began), highlight=False, markup=False)
