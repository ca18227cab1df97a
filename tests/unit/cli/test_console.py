"""What `slimmoa serve` and `slimmoa export` say to a access that would stand open; `slimmoa keys`."""

from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from cli.console import with_access
from cli.main import app
from configs.load import load, parse
from configs.schema import Recipe
from serve_app.access.api_keys import VARIABLE, find_key, generate_key, key_line, parse_keys

RECIPE = load("scripted")


@pytest.fixture(autouse=True)
def no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(key_line("alice", generate_key()))
    return path


def refused(
    capsys: pytest.CaptureFixture[str], host: str, keys: Path | None = None, *, no_keys: bool = False
) -> str:
    with pytest.raises(typer.Exit) as ended:
        with_access(RECIPE, host, keys, no_keys=no_keys)
    assert ended.value.exit_code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_no_keys_are_needed(host: str) -> None:
    assert with_access(RECIPE, host, None, no_keys=False) == RECIPE


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "myhost"])
def test_elsewhere_keys_are_needed_or_that_none_are_wanted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keys_file: Path,
    host: str,
) -> None:
    error = refused(capsys, host)
    assert f"{host} can be reached by others, and there are no API keys" in error
    assert "--keys" in error
    assert "--no-keys" in error
    assert with_access(RECIPE, host, None, no_keys=True).access.open
    served = with_access(RECIPE, host, keys_file, no_keys=False)
    assert served.access.keys_file == str(keys_file)
    assert not served.access.open
    monkeypatch.setenv(VARIABLE, "k" * 20)
    assert with_access(RECIPE, host, None, no_keys=False) == RECIPE


def test_a_recipe_may_say_it_too() -> None:
    settings = RECIPE.model_dump() | {"access": {"open": True}}
    assert with_access(Recipe.model_validate(settings), "0.0.0.0", None, no_keys=False).access.open


def test_keys_that_cannot_be_used_end_the_command_before_it_starts_anything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "cannot read the file of keys" in refused(capsys, "127.0.0.1", tmp_path / "nowhere")
    monkeypatch.setenv(VARIABLE, "short")
    assert "SLIMMOA_API_KEYS: key 1 has 5 characters" in refused(capsys, "127.0.0.1")


def test_keys_and_no_keys_are_one_too_many(capsys: pytest.CaptureFixture[str], keys_file: Path) -> None:
    assert "leave out one of the two" in refused(capsys, "127.0.0.1", keys_file, no_keys=True)


def test_the_recipes_file_of_keys_counts_from_its_folder(tmp_path: Path) -> None:
    recipe = parse(yaml.safe_dump(settings(keys_file="keys.yaml")), folder=tmp_path)
    assert recipe.access.keys_file == str(tmp_path / "keys.yaml")


@pytest.mark.parametrize(
    "origin", ["chat.example.org", "https://a.org/path", "https://a.org, b", "null"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        Recipe.model_validate(settings(cors_origins=[origin]))


def settings(**access: object) -> dict[str, object]:
    return RECIPE.model_dump(mode="json") | {"access": access}


def test_a_new_keys_line_is_printed_alone_and_the_key_is_shown() -> None:
    made = CliRunner().invoke(app, ["keys", "new", "--name", "alice"])
    assert made.exit_code == 0
    (kept,) = parse_keys(made.stdout, "keys.yaml")
    assert find_key([kept], made.stderr.split()[-1].encode()) is kept
    assert made.stderr.split()[-1] not in made.stdout
