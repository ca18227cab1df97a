"""`slimmoa presets` and the preset that `slimmoa serve --auto` takes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from actors.weights.lookup import WeightsState
from cli import preset_rows
from cli.best_preset import choose_preset, offer_better
from cli.main import app
from cluster.cards.card import GIB, Card
from cluster.cards.catalog import card_by_name
from configs.load import presets
from configs.preset_uses import USES
from tests.unit.fake_hub import FakeHub, point_client_at, serve_hub

ROOT = Path(__file__).parents[3]
NO_HUB = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def nothing_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights are on this machine, and its Hub does not answer."""
    point_client_at(NO_HUB, tmp_path, monkeypatch)
    monkeypatch.setattr("actors.weights.hub._unreachable", {})
    monkeypatch.delenv("SLIMMOA_CARDS", raising=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve_hub() as hub:
        point_client_at(hub.url, tmp_path, monkeypatch)
        yield hub


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def machine(monkeypatch: pytest.MonkeyPatch, card: Card, *, engines: bool = True) -> None:
    """Pretend that this machine has the card, and all engines or none."""
    monkeypatch.setattr(preset_rows, "detect_cards", lambda: [card])
    missing = [] if engines else ["vLLM, which is not installed"]
    monkeypatch.setattr(preset_rows, "missing_engines", lambda *_, **__: iter(missing))


def laptop(gib: int, *, speed: float = 4) -> Card:
    """A laptop that is faster than an old one with 8 cores by this factor."""
    return Card(
        "cpu", gib * GIB, cores=8, bandwidth=speed * 20e9, flops=speed * 4e11, host_bytes=gib * GIB
    )


def test_all_presets_are_listed_with_one_line_each() -> None:
    found = call("presets", "--card", "A100-80GB")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert len(lines) == 1 + len(presets()) + 1
    assert sorted(line.split()[0] for line in lines[1:-1]) == presets()
    row = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert row["slim_moa_a100"] == "takes turns, about 76 s an answer 181.2 GB to fetch"
    assert row["self_moa"] == "fits, all awake, about 12 s an answer 18.5 GB to fetch"
    assert row["remote"] == "form to fill in: it names other servers none"
    assert row["together_moa"].startswith("does not fit: needs ")


def test_every_use_is_that_of_a_preset() -> None:
    later = {"small_cpu"} - set(presets())
    assert set(USES) - later <= set(presets())


@pytest.mark.parametrize(
    ("arguments", "best"),
    [
        (("--card", "A100-80GB"), "moa_a100_80gb"),
        (("--card", "H100-80GB"), "moa_h100_80gb"),
        (("--card", "H200-141GB"), "moa_h200"),
        (("--card", "L40S"), "moa_48gb"),
        (("--card", "RTX-4090"), "moa_24gb"),
        (("--card", "RTX-4080"), "moa_16gb"),
        (("--card", "RTX-3060-12GB"), "moa_12gb"),
        (("--ram", "32"), "laptop_32gb"),
        (("--ram", "16"), "laptop_16gb"),
        (("--ram", "8"), "laptop_8gb"),
    ],
)
def test_the_best_for_a_card_is_the_recipe_that_was_made_for_it(
    arguments: tuple[str, ...], best: str
) -> None:
    lines = call("presets", *arguments).stdout.splitlines()
    assert lines[1].split()[:3] == [best, "fits,", "all"]
    auto = lines[-1].removeprefix("`slimmoa serve --auto` would take ")
    if arguments[0] == "--card":
        first, _, second = auto.partition(" if the Hub answers, else ")
        assert (first, USES[second].kind) == (best, "fallback")
    else:  # a machine without a GPU answers too slowly with it, unless its memory is fast
        chosen, _, other = auto.partition("; stronger, about ")
        assert USES[chosen].kind == "fallback"
        assert other.endswith(f" minutes an answer: `slimmoa serve {best}`")


@pytest.mark.parametrize("card", ["A100-40GB", "B300-288GB", "RTX-5090"])
def test_other_cards_get_no_experiment(card: str) -> None:
    found = json.loads(call("presets", "--card", card, "--json").stdout)
    assert found[0]["for"] in ("gpu", "cpu")
    assert found[0]["can_run"] is True


def test_what_cannot_run_is_listed_after_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, card_by_name("L40S"), engines=False)
    found = json.loads(call("presets", "--json").stdout)
    (row,) = (row for row in found if row["preset"] == "moa_48gb")
    words = "needs vLLM, which is not installed; then all awake, about 20 s an answer"
    assert (row["words"], row["can_run"]) == (words, False)
    assert [row["can_run"] for row in found] == sorted((r["can_run"] for r in found), reverse=True)


def test_without_a_gpu_the_recipes_for_gpus_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, laptop(64, speed=1))
    words = {row["preset"]: row["words"] for row in json.loads(call("presets", "--json").stdout)}
    assert words["moa_48gb"] == "needs a GPU, and there is none"
    assert words["moa_24gb"].startswith("too slow here, about ")


def test_auto_takes_the_first_of_the_list_if_the_hub_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, laptop(15))
    monkeypatch.setattr("actors.weights.obtainable.hub_gives", lambda _source: 1000)
    first = call("presets").stdout.splitlines()[1].split()[0]
    chosen = choose_preset()
    assert chosen.name == first == "laptop_16gb"
    assert chosen.why.startswith("--auto takes laptop_16gb: fits, all loaded, about ")
    assert chosen.why.endswith("; weights: 9.8 GB to fetch")


@pytest.mark.parametrize(
    ("speed", "name", "stronger"),
    [
        (4, "laptop_16gb", ""),
        (1, "small_cpu", "; stronger, about 4 minutes an answer: `slimmoa serve laptop_16gb`"),
        (0.4, "tiny_cpu", "; stronger, about 10 minutes an answer: `slimmoa serve laptop_16gb`"),
    ],
)
def test_auto_takes_the_best_that_answers_soon_enough_and_names_a_stronger_one(
    monkeypatch: pytest.MonkeyPatch, speed: float, name: str, stronger: str
) -> None:
    machine(monkeypatch, laptop(15, speed=speed))
    monkeypatch.setattr("actors.weights.obtainable.hub_gives", lambda _source: 1000)
    chosen = choose_preset()
    assert chosen.name == name
    assert chosen.why.endswith(f" to fetch{stronger}")


def test_auto_takes_a_small_preset_without_a_hub_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, laptop(15))
    chosen = choose_preset()
    assert USES[chosen.name].kind == "fallback"
    assert (
        f"(not laptop_16gb and 2 more: qwen3-4b: the Hub ({NO_HUB}) cannot be reached: " in chosen.why
    )


def test_auto_passes_over_what_the_hub_refuses(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, laptop(15))
    chosen = choose_preset()
    assert USES[chosen.name].kind == "fallback"
    assert "there is no such repository" in chosen.why
    assert hub.sent == {}


def test_auto_needs_no_hub_for_weights_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, laptop(15))
    here = WeightsState(True, 5)
    monkeypatch.setattr(
        preset_rows, "weights_states", lambda recipe: dict.fromkeys(recipe.models, here)
    )
    assert choose_preset().name == "laptop_16gb"


def test_auto_says_that_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Card("cpu", GIB // 4, cores=1, bandwidth=1e9, flops=1e9))
    refused = call("serve", "--auto")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [
        "error: no preset can be served on this machine; `slimmoa presets` lists them"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scripted", "--auto"), "--auto chooses a recipe itself, and 'scripted' names one"),
        (("--auto", "--address", "auto"), "--auto looks at this machine alone: with --address, name"),
    ],
)
def test_auto_with_another_choice_is_refused(arguments: tuple[str, ...], message: str) -> None:
    refused = call("serve", *arguments)
    assert refused.exit_code == 1
    assert message in refused.stderr


def test_auto_goes_on_as_serve_with_the_presets_name(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, laptop(15))
    served: list[str] = []

    def stop(recipe: object, **_: object) -> None:
        served.append(recipe.name)  # type: ignore[attr-defined]
        raise OSError("no weights in this test")

    monkeypatch.setattr("cluster.ray_runtime.check_port", lambda *_: None)
    monkeypatch.setattr("cli.serve.download_missing_weights", stop)
    refused = call("serve", "--auto")
    assert "no weights in this test" in refused.stderr
    assert refused.stderr.startswith("--auto takes ")
    assert len(served) == 1
    assert served[0].startswith("slimmoa-")


class AtOnce:
    """A thread whose work is done when it is started."""

    def __init__(self, target: Callable[[str], None], args: list[str], *, daemon: bool) -> None:
        assert daemon
        self._target, self._args = target, args

    def start(self) -> None:
        self._target(*self._args)


@pytest.mark.parametrize(("served", "offers"), [("tiny_cpu", 1), ("laptop_16gb", 0), ("x.yaml", 0)])
def test_a_better_preset_is_offered_after_the_default_if_the_hub_answers(
    served: str, offers: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, laptop(15))
    monkeypatch.setattr("actors.weights.obtainable.hub_gives", lambda _source: 1000)
    monkeypatch.setattr("cli.best_preset.threading.Thread", AtOnce)
    offer_better(served)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == offers
    for line in lines:
        assert line.startswith(
            "  the Hub answers: `slimmoa serve laptop_16gb` would give better answers (fits, all loaded"
        )
        assert line.endswith("; weights: 9.8 GB to fetch)")


@pytest.mark.parametrize(
    ("speed", "stronger"),
    [(4, ""), (1, "; stronger, about 4 minutes an answer: `slimmoa serve laptop_16gb`")],
)
def test_without_a_hub_or_time_a_small_preset_is_offered(
    speed: float, stronger: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, laptop(15, speed=speed))
    monkeypatch.setattr("cli.best_preset.threading.Thread", AtOnce)
    offer_better("tiny_cpu")
    offer = capsys.readouterr().err
    assert offer.startswith("  `slimmoa serve small_cpu` would give better answers (fits, all loaded")
    assert offer.endswith(f"to fetch){stronger}\n")


def test_the_list_and_a_new_recipe_do_not_import_ray() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from cli.main import app\n"
        "found = CliRunner().invoke(app, ['presets', '--card', 'L4'])\n"
        "assert found.exit_code == 0, found.output\n"
        "CliRunner().invoke(app, ['new', 'x/', '--card', 'L4'])\n"
        "assert not {'ray', 'openai', 'fastapi'} & set(sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
