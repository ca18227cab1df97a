"""docs/metrics.md: the prose of metrics.md beside this file, with tables of all metrics."""

import re
from collections.abc import Iterable
from pathlib import Path

from serve_app.metrics.named import Named
from serve_app.metrics.names import OF_ALL, OF_INGRESSES

TEMPLATE = Path(__file__).with_suffix(".md")
VLLM = "vllm:"


def metrics_page() -> str:
    """The whole page."""
    parts = {
        "vllm": _table(n for n in (*OF_INGRESSES, *OF_ALL) if n.name.startswith(VLLM)),
        "ingress": _table(n for n in OF_INGRESSES if not n.name.startswith(VLLM)),
        "all": _table(n for n in OF_ALL if not n.name.startswith(VLLM)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], TEMPLATE.read_text("utf-8"))


def _table(metrics: Iterable[Named]) -> str:
    rows = [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.text} |"
        for m in metrics
    ]
    return "\n".join(["| name | kind | labels | what it says |", "| --- | --- | --- | --- |", *rows])
