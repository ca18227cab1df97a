"""A hundred mistakes that people make, and what `slimmoa` says to each: the table of docs/mistakes.md.

    python -m tests.unit.cli.mistakes > docs/mistakes.md

Nothing is started and no network is used: endpoints are asked at a port of this machine where nothing
listens. `test_mistakes.py` holds what is printed to a few rules.
"""

import os
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app

RECIPE = """\
name: mine
models:
  qwen:
    engine: llamacpp
    weights: [{hub: Qwen/Qwen3-4B-GGUF, file: Qwen3-4B-Q4_K_M.gguf}]
    context_tokens: 8192
    concurrency: 2
  hosted:
    engine: openai_http
    base_url: https://api.example.com/v1
    model: some-model
  fake:
    engine: scripted
layers:
  - proposers:
      - {model: fake, samples: 2}
      - {model: hosted, sampling: {temperature: 0.7, max_tokens: 512}}
aggregator:
  model: fake
limits:
  deadline_s: 120
  layer_deadline_s: 60
"""
"""A recipe that `check` accepts."""
SCRIPTED = """\
name: mine
models: {fake: {engine: scripted}}
layers: [{proposers: [{model: fake}]}]
aggregator: {model: fake}
"""


@dataclass(frozen=True)
class Mistake:
    """One mistake: what a person did, and the command that shows it."""

    what: str
    words: Sequence[str]
    """The words after `slimmoa`. {F} stands for the folder of the files."""
    recipe: str = ""
    """Text of the file mine.yaml."""


def _in_recipe(what: str, old: str, new: str) -> Mistake:
    assert old in RECIPE, old
    return Mistake(what, ("check", "mine.yaml"), RECIPE.replace(old, new, 1))


RECIPES = [
    _in_recipe("a key is misspelt", "aggregator:", "agregator:"),
    _in_recipe("a setting is misspelt", "samples: 2", "sampels: 2"),
    _in_recipe(
        "a limit stands at the top", "limits:\n  deadline_s", "deadline_s: 9\nlimits:\n  deadline_s"
    ),
    _in_recipe("llama.cpp's word for the context", "context_tokens: 8192", "n_ctx: 8192"),
    _in_recipe("vLLM's word for the context", "context_tokens: 8192", "max_model_len: 8192"),
    _in_recipe("vLLM's word for concurrency", "concurrency: 2", "max_num_seqs: 2"),
    _in_recipe("max_tokens beside sampling", "samples: 2}", "samples: 2, max_tokens: 9}"),
    _in_recipe(
        "temperature beside the model", "engine: scripted", "engine: scripted\n    temperature: 1"
    ),
    _in_recipe("`url` for a server", "base_url:", "url:"),
    _in_recipe("an engine by its file's name", "engine: llamacpp", "engine: gguf"),
    _in_recipe("an engine by its program's name", "engine: openai_http", "engine: ollama"),
    _in_recipe("an engine with a hyphen", "engine: llamacpp", "engine: llama-cpp"),
    _in_recipe("no engine", "    engine: scripted\n", "    tokens: 5\n"),
    _in_recipe("a number in quotes", "context_tokens: 8192", "context_tokens: '8192'"),
    _in_recipe("8k", "context_tokens: 8192", "context_tokens: 8k"),
    _in_recipe("a number with commas", "context_tokens: 8192", "context_tokens: 8,192"),
    _in_recipe("a negative number", "samples: 2", "samples: -1"),
    _in_recipe("half a sample", "samples: 2", "samples: 1.5"),
    _in_recipe("no number at all", "samples: 2", "samples:"),
    _in_recipe("too many samples", "samples: 2", "samples: 100"),
    _in_recipe("a temperature that is too high", "temperature: 0.7", "temperature: 70"),
    _in_recipe("a temperature in words", "temperature: 0.7", "temperature: low"),
    _in_recipe("yes for a switch", "limits:", "access: {open: 'yes'}\nlimits:"),
    _in_recipe(
        "a text in place of a list",
        "  - proposers:\n      - {model: fake, samples: 2}\n"
        "      - {model: hosted, sampling: {temperature: 0.7, max_tokens: 512}}",
        "  - proposers: fake",
    ),
    _in_recipe("layers without hyphens", "layers:\n  - proposers:", "layers:\n    proposers:"),
    _in_recipe(
        "a list in place of a mapping", "limits:\n  deadline_s: 120", "limits:\n  - deadline_s: 120"
    ),
    _in_recipe(
        "weights as a text",
        "weights: [{hub: Qwen/Qwen3-4B-GGUF, file: Qwen3-4B-Q4_K_M.gguf}]",
        "weights: qwen.gguf",
    ),
    _in_recipe(
        "weights without a source",
        "{hub: Qwen/Qwen3-4B-GGUF, file: Qwen3-4B-Q4_K_M.gguf}",
        "{file: Qwen3-4B-Q4_K_M.gguf}",
    ),
    _in_recipe(
        "the Hub's address as a repository",
        "hub: Qwen/Qwen3-4B-GGUF",
        "hub: https://huggingface.co/Qwen/Qwen3-4B-GGUF",
    ),
    _in_recipe("a repository without its owner", "hub: Qwen/Qwen3-4B-GGUF", "hub: Qwen3-4B-GGUF"),
    _in_recipe("a repository without a file", ", file: Qwen3-4B-Q4_K_M.gguf", ""),
    _in_recipe("a checksum that is cut", "file: Qwen3-4B-Q4_K_M.gguf", "file: a.gguf, sha256: abc123"),
    _in_recipe("a proposer that is no model", "{model: fake, samples: 2}", "{model: qwne}"),
    _in_recipe(
        "an aggregator that is no model", "aggregator:\n  model: fake", "aggregator:\n  model: gpt-4o"
    ),
    _in_recipe("the mixture has a model's name", "name: mine", "name: fake"),
    _in_recipe("a name with a space", "name: mine", "name: my mixture"),
    _in_recipe(
        "an API key in the recipe", "model: some-model", "model: some-model\n    api_key: sk-0123456789"
    ),
    _in_recipe(
        "a key where its variable's name belongs",
        "model: some-model",
        "model: some-model\n    api_key_env: sk-0123456789",
    ),
    _in_recipe("a server without a scheme", "https://api.example.com/v1", "api.example.com/v1"),
    _in_recipe(
        "a reasoning format that is not known",
        "engine: openai_http",
        "engine: openai_http\n    reasoning_format: deepseek",
    ),
    _in_recipe("a key twice", "name: mine", "name: mine\nname: yours"),
    _in_recipe("a tab", "models:\n  qwen:", "models:\n\tqwen:"),
    _in_recipe(
        "a bracket that is not closed",
        "[{hub: Qwen/Qwen3-4B-GGUF, file: Qwen3-4B-Q4_K_M.gguf}]",
        "[{hub: a/b, file: c}",
    ),
    _in_recipe("no colon", "  model: fake\nlimits", "  model fake\nlimits"),
    _in_recipe("a quorum above the number of proposals", "limits:", "limits:\n  quorum: 4"),
    _in_recipe(
        "layers that leave the aggregator no time", "layer_deadline_s: 60", "layer_deadline_s: 120"
    ),
    _in_recipe("an answer as long as the context", "max_tokens: 512", "max_tokens: 4096"),
    Mistake(
        "a queue below one answer's calls",
        ("check", "mine.yaml"),
        RECIPE.replace("samples: 2", "samples: 9").replace("limits:", "limits:\n  queue: 2"),
    ),
    _in_recipe("copies of one proposal", "samples: 2", "samples: 2, sampling: {temperature: 0}"),
    _in_recipe("no time for slow proposers", "limits:", "limits:\n  grace_s: 0"),
    _in_recipe("a grace that is never reached", "limits:", "limits:\n  grace_s: 90"),
    _in_recipe("a form without the text", "limits:", "references: {item: '{number}'}\nlimits:"),
    _in_recipe(
        "a prompt's file that is not there", "limits:", "references: {prompt_file: prompt.txt}\nlimits:"
    ),
    _in_recipe(
        "a key may ask a model that is not here",
        "limits:",
        "access: {allowance: {models: [gpt-4]}}\nlimits:",
    ),
    _in_recipe(
        "an allowance below one answer",
        "limits:",
        "access: {allowance: {tokens_per_minute: 100}}\nlimits:",
    ),
]
FILES = [
    Mistake("a recipe that is misspelt", ("check", "mien.yaml"), SCRIPTED),
    Mistake("a preset that is misspelt", ("check", "tinycpu")),
    Mistake("a folder", ("check", "folder")),
    Mistake("an empty file", ("check", "empty.yaml")),
    Mistake("weights in place of a recipe", ("check", "model.gguf")),
    Mistake("JSON that is a list", ("check", "list.json")),
    Mistake("a file that nobody may write", ("export", "mine.yaml", "-o", "/proc/version"), SCRIPTED),
    Mistake("a folder that is not there", ("export", "mine.yaml", "-o", "nowhere/out.yaml"), SCRIPTED),
    Mistake("a full disk", ("export", "mine.yaml", "-o", "/dev/full"), SCRIPTED),
    Mistake("a folder to draw into", ("plan", "moa_24gb", "--card", "L4", "--svg", "folder")),
    Mistake(
        "a file of keys that is not there", ("export", "mine.yaml", "--keys", "keys.yaml"), SCRIPTED
    ),
    Mistake("a recipe as a file of keys", ("export", "mine.yaml", "--keys", "mine.yaml"), SCRIPTED),
    Mistake(
        "a file of keys in links that lead in a circle",
        ("export", "mine.yaml", "--keys", "circle"),
        SCRIPTED,
    ),
    Mistake("a run that is not there", ("bench", "status", "runs/one")),
    Mistake("a folder that is no run", ("bench", "report", "folder")),
    Mistake("a database that is none", ("bench", "status", "broken")),
    Mistake(
        "a set that is not there",
        ("bench", "run", "--out", "run", "--set", "prompts.jsonl", "--config", "tiny_cpu"),
    ),
    Mistake(
        "a set with another ending",
        ("bench", "run", "--out", "run", "--set", "model.gguf", "--config", "tiny_cpu"),
    ),
    Mistake("no preferences", ("bench", "score", "--preferences", "nowhere.csv")),
    Mistake("neither run nor preferences", ("bench", "score")),
    Mistake(
        "a device for a prompt", ("bench", "grade", "run", "--judge", "m", "--prompt", "/dev/zero")
    ),
]
OPTIONS = [
    Mistake("a command that is misspelt", ("sreve",)),
    Mistake("an option that is misspelt", ("plan", "moa_24gb", "--crad", "L4")),
    Mistake("no argument", ("new",)),
    Mistake("no model", ("new", "mine2.yaml")),
    Mistake("a model without its owner", ("new", "mine2.yaml", "qwen3")),
    Mistake("a file that exists", ("new", "mine.yaml", "Qwen/Qwen3-8B"), SCRIPTED),
    Mistake("a port in words", ("serve", "mine.yaml", "--port", "http"), SCRIPTED),
    Mistake("a port that is too high", ("serve", "mine.yaml", "--port", "80000"), SCRIPTED),
    Mistake("an open interface without keys", ("serve", "mine.yaml", "--host", "0.0.0.0"), SCRIPTED),
    Mistake(
        "keys and no keys", ("serve", "mine.yaml", "--keys", "good_keys.yaml", "--no-keys"), SCRIPTED
    ),
    Mistake("--auto and a recipe", ("serve", "mine.yaml", "--auto"), SCRIPTED),
    Mistake("a card that does not exist", ("plan", "moa_24gb", "--card", "RTX 4095")),
    Mistake("a card of AMD", ("plan", "moa_24gb", "--card", "MI300X")),
    Mistake("a Mac", ("plan", "moa_24gb", "--card", "M3 Max")),
    Mistake("an old card", ("plan", "moa_24gb", "--card", "GTX 1080 Ti")),
    Mistake("two cards in one option", ("plan", "moa_24gb", "--card", "2x RTX 3090")),
    Mistake("a card that is too small", ("plan", "together_moa", "--card", "RTX 3060")),
    Mistake("RAM in words", ("presets", "--ram", "lots")),
    Mistake("infinite RAM", ("presets", "--ram", "inf")),
    Mistake("a key's name with a space", ("keys", "new", "--name", "a b")),
    Mistake(
        "a pair without =",
        ("bench", "ablate", "run", "--judge", "m", "--baseline", "b", "--unquantized", "a:b"),
    ),
    Mistake("half a row", ("bench", "run", "--out", "run", "--limit", "0.5")),
]
URLS = [
    Mistake("nothing listens", ("ask", "--url", "127.0.0.1:1", "Why?")),
    Mistake("another scheme", ("ask", "--url", "ftp://127.0.0.1", "Why?")),
    Mistake("one slash", ("ask", "--url", "http:/127.0.0.1:1", "Why?")),
    Mistake("a space", ("ask", "--url", "http://my host", "Why?")),
    Mistake("a port in words", ("ask", "--url", "localhost:http", "Why?")),
    Mistake("IPv6 without brackets", ("ask", "--url", "http://::1:8000/v1", "Why?")),
    Mistake("a key in the URL", ("ask", "--url", "http://127.0.0.1:1/v1?key=x", "Why?")),
    Mistake("a password in the URL", ("ask", "--url", "http://me:secret@127.0.0.1:1", "Why?")),
    Mistake("a path", ("ask", "--url", "/v1", "Why?")),
    Mistake("a key that is no key", ("ask", "--url", "127.0.0.1:1", "--api-key", "клюC", "Why?")),
    Mistake("an empty question", ("ask", "--url", "127.0.0.1:1", "")),
    Mistake("a scheme that is misspelt", ("ask", "--url", "htp://127.0.0.1:8000", "Why?")),
]
ALL = {"Recipes": RECIPES, "Files": FILES, "Options": OPTIONS, "URLs": URLS}


def make_files(folder: Path) -> None:
    """The files that the mistakes are made with."""
    (folder / "folder").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "run.sqlite").write_bytes(b"this is no database, but it is long enough" * 40)
    (folder / "run").mkdir()
    (folder / "circle").symlink_to("circle")
    (folder / "empty.yaml").write_text("")
    (folder / "list.json").write_text("[1, 2]")
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(range(256)))
    (folder / "good_keys.yaml").write_text(f"alice: sha256:{'0' * 64}\n")


def said(mistake: Mistake, folder: Path) -> tuple[int, str]:
    """The exit code of a mistake's command, and what the command prints."""
    (folder / "mine.yaml").unlink(missing_ok=True)
    if mistake.recipe:
        (folder / "mine.yaml").write_text(mistake.recipe)
    ran = CliRunner().invoke(app, list(mistake.words), input="")
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.output.replace(str(folder), ".").strip()


def rows(folder: Path) -> Iterator[tuple[str, Mistake, int, str]]:
    """Each mistake with its group, its exit code and what is printed."""
    make_files(folder)
    for group, mistakes in ALL.items():
        for mistake in mistakes:
            yield group, mistake, *said(mistake, folder)


HEAD = """\
# A hundred mistakes

What `slimmoa` says to mistakes in recipes, files, options and URLs, as `tests/unit/cli/mistakes.py`
prints it. Recipes are checked with `slimmoa check mine.yaml`. Long messages are shortened here.
"""
LONGEST, MOST_LINES = 420, 6


def _cell(text: str) -> str:
    """Text for a cell of a table: the message's lines, of which a long one's middle is left out."""
    lines = [line.strip() for line in text.splitlines() if not re.match(r"Usage: |Try '|$", line)]
    lines = [line for line in lines if line.startswith("warning: ")] or lines
    if len(lines) > MOST_LINES:
        lines = [*lines[:2], "...", *lines[-2:]]
    lines = [line if len(line) <= LONGEST else f"{line[:LONGEST]} ..." for line in lines]
    return "<br>".join(re.sub(r"([|<>*_`])", r"\\\1", line) for line in lines)


def table(folder: Path) -> str:
    lines, group = [HEAD], ""
    for number, (named, mistake, code, text) in enumerate(rows(folder), 1):
        if named != group:
            group = named
            lines.append(
                f"\n## {group}\n\n| | mistake | exit code | what is printed |\n| --- | --- | --- | "
                f"--- |"
            )
        shown = (
            ""
            if group == "Recipes"
            else f": `slimmoa {' '.join(w or chr(39) * 2 for w in mistake.words)}`"
        )
        lines.append(f"| {number} | {mistake.what}{shown} | {code} | {_cell(text)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in ("SLIMMOA_URL", "SLIMMOA_CARDS", "SLIMMOA_API_KEY", "SLIMMOA_API_KEYS"):
        os.environ.pop(name, None)

    look_up = socket.getaddrinfo

    def _no_network(host: str, *rest: int, **named: int) -> list[tuple[object, ...]]:
        if host == "127.0.0.1":
            return list(look_up(host, *rest, **named))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    socket.getaddrinfo = _no_network  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as made:
        os.environ["SLIMMOA_CACHE"] = made
        os.chdir(made)
        print(table(Path(made)), end="")
