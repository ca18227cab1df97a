"""Imports point one way, between folders and between the rooms inside them, and never in a circle.

    cli -> jobs -> serve_app -> actors -> cluster -> configs

Inside `serve_app`: Serve graph -> http -> access -> metrics -> mixture. Inside `actors`: replica ->
calls -> keeper -> engines -> text -> weights. Inside `cluster`: runtime -> plan -> cards, and
residency, which knows nobody. Heavy libraries stay in the few modules that may import them. The rules
are checked on the source text, so imports inside functions count as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ("cli", "jobs", "serve_app", "actors", "cluster", "configs")
ROOMS = (
    "cli",
    "jobs",
    "serve_app",
    "serve_app.tracing",
    "serve_app.http",
    "serve_app.access",
    "serve_app.recent",
    "serve_app.recent_report",
    "serve_app.log_lines",
    "serve_app.metrics",
    "serve_app.observe",
    "serve_app.mixture",
    "serve_app.error_response",
    "serve_app.error_schema",
    "serve_app.safe_traceback",
    "serve_app.request_id",
    "actors",
    "actors.calls",
    "actors.keeper",
    "actors.engines",
    "actors.text",
    "actors.origin",
    "actors.engine",
    "actors.private_folder",
    "actors.weights",
    "cluster",
    "cluster.plan",
    "cluster.cards",
    "cluster.residency",
    "cluster.logs",
    "configs",
)
"""Every room, the upper ones first. A module belongs to the longest of these that begins its name."""
LAZY = {
    "actors.engines.llamacpp",
    "actors.engines.openai_http",
    "actors.engines.scripted",
    "actors.engines.vllm",
}
CLUSTER = {
    "actors.keeper.ray_keeper",
    "serve_app.app",
    "serve_app.deployments",
    "serve_app.replica_watch",
    "serve_app.follow_nodes",
    "cluster.ray_address",
    "cluster.ray_applications",
    "cluster.ray_processes",
    "cluster.ray_runtime",
    "jobs.model_app",
    "cli.ray_job",
}
HTTP = {
    "serve_app.http.api",
    "serve_app.deployments",
    "serve_app.http.chat",
    "serve_app.http.connection",
    "serve_app.http.health",
    "serve_app.http.metrics",
    "serve_app.access.auth",
    "serve_app.http.openapi",
    "serve_app.http.page_files",
    "serve_app.http.paths",
    "serve_app.http.refusals",
    "serve_app.http.served_models",
    "serve_app.http.state",
    "serve_app.error_response",
    "serve_app.request_id",
    "serve_app.http.exchange",
    "serve_app.http.http_protocol",
    "serve_app.http.listener",
}
# Library: the only modules that may import it.
HOMES = {
    "xllamacpp": {"actors.engines.llamacpp_params", "actors.engines.llamacpp_sampling"},
    "aiohttp": {
        "actors.engines.http_events",
        "actors.engines.llamacpp_socket",
        "actors.engines.openai_http",
    },
    "ray": CLUSTER,
    "transformers": {"cluster.plan.class_defaults"},
    "vllm": {"actors.engines.vllm_library"},
    "fastapi": HTTP,
    "prometheus_client": {
        "serve_app.deployments",
        "serve_app.http.metrics",
        "serve_app.metrics.cluster",
        "serve_app.metrics.named",
        "serve_app.metrics.observer",
        "serve_app.metrics.server_metrics",
    },
    "opentelemetry": {
        "serve_app.tracing.calls",
        "serve_app.tracing.observer",
        "serve_app.tracing.provider",
        "serve_app.tracing.sender",
        "serve_app.tracing.spans",
    },
    "h11": {"serve_app.http.exchange", "serve_app.http.http_protocol"},
    "starlette": HTTP,
}
WITHOUT_HOME = {"torch"}
MIXTURE = "serve_app.mixture.moa"


def modules(root: Path) -> dict[str, Path]:
    """The project's modules by dotted name."""
    files = [f for top in ORDER for f in [root / f"{top}.py", *sorted((root / top).rglob("*.py"))]]
    found = {}
    for file in filter(Path.is_file, files):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room(name: str) -> str:
    """The room that a module, or a name in it, belongs to."""
    return max((r for r in ROOMS if f"{name}.".startswith(f"{r}.")), key=len)


def imports(file: Path, module: str) -> Iterator[str]:
    """Every name that the module imports, as `package.module.name`."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            path = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*path, alias.name]) for alias in node.names)


def reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Modules that importing `start` imports: what it names, what these name, and their packages."""
    found: set[str] = set()
    left = [start]
    while left:
        module = left.pop()
        if module in graph and module not in found:
            found.add(module)
            parts = [name.split(".") for name in graph[module]] + [module.split(".")]
            left += [".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)]
    return found


def violations(root: Path) -> list[str]:
    """Every import that breaks a rule, as `module -> imported: why`."""
    graph = {name: set(imports(file, name)) for name, file in modules(root).items()}
    return sorted(
        f"{module} -> {name}: {why}"
        for module, names in graph.items()
        for name in names
        if (why := _why_not(module, name, module in reachable(MIXTURE, graph)))
    )


def circles(root: Path) -> list[list[str]]:
    """Modules that reach themselves over their imports, those inside functions too."""
    files = modules(root)
    graph = {
        name: {
            target
            for found in imports(file, name)
            for target in (found, found.rpartition(".")[0])
            if target in files and target != name
        }
        for name, file in files.items()
    }
    found = []
    for start in graph:
        left, seen = list(graph[start]), set[str]()
        while left:
            module = left.pop()
            if module not in seen:
                seen.add(module)
                left += graph[module]
        if start in seen:
            found.append(start)
    return [found] if found else []


def _why_not(module: str, name: str, is_mixture: bool) -> str | None:
    library = name.split(".")[0]
    if library in ORDER and ROOMS.index(room(name)) < ROOMS.index(room(module)):
        return "points backwards"
    if any(name == lazy or name.startswith(f"{lazy}.") for lazy in LAZY):
        return "engines are imported by name, when chosen"
    if library in WITHOUT_HOME or module not in HOMES.get(library, {module}):
        return f"{library} does not belong here"
    if is_mixture and library in HOMES:
        return f"the mixture knows nothing of {library}"
    return None


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


def test_no_imports_form_a_circle(tmp_path: Path) -> None:
    assert circles(ROOT) == []
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/a.py").write_text("def f():\n  from jobs import b")
    (tmp_path / "jobs/b.py").write_text("from jobs.c import x")
    (tmp_path / "jobs/c.py").write_text("from jobs.a import f")
    assert circles(tmp_path) == [["jobs.a", "jobs.b", "jobs.c"]]


def test_all_of_the_project_was_looked_at() -> None:
    found = set(modules(ROOT))
    assert LAZY | {MIXTURE, "serve_app.app", "serve_app.http.api", "actors", "configs.schema"} <= found
    graph = {name: set(imports(file, name)) for name, file in modules(ROOT).items()}
    assert {"serve_app.mixture.layer", "actors.engine", "configs.schema"} <= reachable(MIXTURE, graph)


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("configs/schema.py", "import cluster", "configs.schema -> cluster: points backwards"),
        ("configs/schema.py", "import cli", "configs.schema -> cli: points backwards"),
        (
            "cluster/cards/card.py",
            "from actors import x",
            "cluster.cards.card -> actors.x: points backwards",
        ),
        ("actors/a.py", "import serve_app.app as y", "actors.a -> serve_app.app: points backwards"),
        (
            "serve_app/http/api.py",
            "def f():\n  import jobs",
            "serve_app.http.api -> jobs: points backwards",
        ),
        (
            "serve_app/mixture/m.py",
            "from serve_app.http import api",
            "serve_app.mixture.m -> serve_app.http.api: points backwards",
        ),
        (
            "serve_app/mixture/m.py",
            "from serve_app.access.auth import KEY",
            "serve_app.mixture.m -> serve_app.access.auth.KEY: points backwards",
        ),
        (
            "serve_app/access/a.py",
            "import serve_app.http.api",
            "serve_app.access.a -> serve_app.http.api: points backwards",
        ),
        (
            "cluster/residency/r.py",
            "from cluster.cards.card import Card",
            "cluster.residency.r -> cluster.cards.card.Card: points backwards",
        ),
        (
            "actors/keeper/k.py",
            "import actors.replica",
            "actors.keeper.k -> actors.replica: points backwards",
        ),
        ("actors/a.py", "import ray.serve", "actors.a -> ray.serve: ray does not belong here"),
        (
            "serve_app/m.py",
            "from ray import serve",
            "serve_app.m -> ray.serve: ray does not belong here",
        ),
        ("actors/a.py", "import xllamacpp", "actors.a -> xllamacpp: xllamacpp does not belong here"),
        ("jobs/j.py", "import aiohttp", "jobs.j -> aiohttp: aiohttp does not belong here"),
        ("cli/main.py", "import torch", "cli.main -> torch: torch does not belong here"),
        (
            "actors/engines/__init__.py",
            "from . import llamacpp",
            "actors.engines -> actors.engines.llamacpp: engines are imported by name, when chosen",
        ),
        (
            "actors/replica.py",
            "from actors.engines.scripted import ScriptedEngine",
            "actors.replica -> actors.engines.scripted.ScriptedEngine: engines are imported by name, "
            "when chosen",
        ),
        (
            "serve_app/error_response.py",
            "import fastapi",
            "serve_app.error_response -> fastapi: the mixture knows nothing of fastapi",
        ),
    ],
)
def test_an_import_that_breaks_a_rule_is_found(
    tmp_path: Path, file: str, source: str, expected: str
) -> None:
    tree = {
        "serve_app/mixture/moa.py": "from serve_app import error_response\n",
        "serve_app/http/api.py": "",
        "serve_app/error_response.py": "",
        "actors/engine.py": "",
        "actors/engines/openai_http.py": "import aiohttp\n",
        "cluster/ray_runtime.py": "import ray\n",
        "configs/schema.py": "import json\n",
    }
    for name, text in {**tree, file: source}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert violations(tmp_path) == [expected]
