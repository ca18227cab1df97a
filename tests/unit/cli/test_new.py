"""`slimmoa new`: recipes from models of the Hub and of this machine, and what it says if it cannot."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from configs.load import load
from tests.unit.fake_hub import (
    CONFIG,
    TOKEN,
    FakeHub,
    FakeRepo,
    checkpoint,
    gguf_file,
    point_client_at,
    serve_hub,
)

CARD = ("--card", "RTX-4090")
NO_HUB = "http://127.0.0.1:1"
GGUFS = {"a-Q4_K_M.gguf": gguf_file(), "a-Q8_0.gguf": gguf_file() + b"\0", "mmproj-F16.gguf": b"x"}


def thinking(template: str) -> dict[str, bytes]:
    files = checkpoint(size=2_000_000)
    files["tokenizer_config.json"] = json.dumps({"chat_template": template}).encode()
    return files


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub, and a user in an empty folder, who has fetched nothing yet."""
    with serve_hub() as hub:
        hub.repos["o/Model-7B-Instruct-AWQ"] = FakeRepo(checkpoint(size=2_000_000))
        hub.repos["o/thinks"] = FakeRepo(thinking("{% if enable_thinking %}<think>{% endif %}"))
        hub.repos["o/small-GGUF"] = FakeRepo(GGUFS)
        hub.repos["o/gated"] = FakeRepo(checkpoint(), gated=True)
        point_client_at(hub.url, tmp_path, monkeypatch)
        monkeypatch.setattr("actors.weights.hub._unreachable", {})
        monkeypatch.delenv("SLIMMOA_CARDS", raising=False)
        (tmp_path / "user").mkdir()
        monkeypatch.chdir(tmp_path / "user")
        yield hub


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ("new", *arguments))


def refused(*arguments: str) -> str:
    """The one line with which a call is refused, after which nothing is left in the folder."""
    before = {path: path.read_bytes() for path in Path().iterdir()}
    found = call(*arguments)
    assert found.exit_code == 1, found.output
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    return line.removeprefix("error: ")


def test_two_ids_become_a_recipe_that_is_checked_planned_and_commented(hub: FakeHub) -> None:
    written = call("mine.yaml", "o/Model-7B-Instruct-AWQ", "o/thinks", *CARD)
    assert written.exit_code == 0, written.stderr
    assert written.stderr.splitlines()[0] == (
        "mine.yaml is written. Proposers: model-7b, thinks. Aggregator: thinks "
        "(the last one; --aggregator chooses another)."
    )
    assert written.stderr.splitlines()[1].startswith("planned on RTX-4090: fits, all awake, about ")
    recipe = load("mine.yaml")
    assert (recipe.name, recipe.aggregator.model, recipe.aggregator.fallbacks) == (
        "mine",
        "thinks",
        ("model-7b",),
    )
    assert [model.engine for model in recipe.models.values()] == ["vllm", "vllm"]
    sources = [model.model_dump()["weights"][0] for model in recipe.models.values()]
    commits = [hub.repos[name].commit for name in ("o/Model-7B-Instruct-AWQ", "o/thinks")]
    assert [source["revision"] for source in sources] == commits
    templates = [model.model_dump()["template"] for model in recipe.models.values()]
    assert templates == [{}, {"enable_thinking": False}]
    assert Path("mine.yaml").read_text("utf-8").count("#") > 10
    assert sum(hub.sent.values()) < 1_000_000  # of 8 MB: headers only
    hub.requests.clear()
    planned = CliRunner().invoke(app, ["plan", "mine.yaml", *CARD])
    assert planned.exit_code == 0, planned.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("o/small-GGUF", "a-Q4_K_M.gguf"),
        ("o/small-GGUF:Q8_0", "a-Q8_0.gguf"),
        ("o/small-GGUF:q8_0", "a-Q8_0.gguf"),
        ("o/small-GGUF/a-Q8_0.gguf", "a-Q8_0.gguf"),
        ("hf.co/o/small-GGUF:Q8_0", "a-Q8_0.gguf"),
        ("https://huggingface.co/o/small-GGUF", "a-Q4_K_M.gguf"),
        ("https://huggingface.co/o/small-GGUF/blob/main/a-Q8_0.gguf?download=true", "a-Q8_0.gguf"),
    ],
)
def test_ggufs_of_the_hub_are_named_in_many_ways_and_pinned(hub: FakeHub, name: str, file: str) -> None:
    assert call(name, *CARD).exit_code == 0
    recipe = load("mixture.yaml")
    (model,) = recipe.models.values()
    assert model.model_dump()["weights"] == (
        {
            "hub": "o/small-GGUF",
            "file": file,
            "revision": hub.repos["o/small-GGUF"].commit,
            "sha256": hub.large("o/small-GGUF", file),
            "part_sha256": None,
        },
    )
    assert (list(recipe.models), recipe.samples) == (["small"], (3,))  # Self-MoA


def test_a_split_file_is_named_by_its_first_part_with_all_checksums(hub: FakeHub) -> None:
    names = ("w-Q4_K_M-00001-of-00002.gguf", "w-Q4_K_M-00002-of-00002.gguf")
    hub.repos["o/split"] = FakeRepo({names[1]: gguf_file() + b"2", names[0]: gguf_file() + b"1"})
    written = call("o/split", *CARD)
    assert written.exit_code == 0, written.stderr
    (source,) = load("mixture.yaml").models["split"].model_dump()["weights"]
    assert source["file"] == names[0]
    assert source["part_sha256"] == tuple(hub.large("o/split", name) for name in names)
    del hub.repos["o/split"].files[names[1]]
    assert refused("b.yaml", "o/split", *CARD).endswith(
        "in 2 parts, and not w-Q4_K_M-00002-of-00002.gguf"
    )


def test_paths_of_this_machine_need_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "one.Q4_0.gguf").write_bytes(gguf_file())
    (tmp_path / "folder").mkdir()
    for name, body in thinking("{{ thinking }}").items():
        (tmp_path / "folder" / name).write_bytes(body)
    written = call(str(tmp_path / "one.Q4_0.gguf"), str(tmp_path / "folder"), "../one.Q4_0.gguf", *CARD)
    assert written.exit_code == 0, written.stderr
    recipe = load("mixture.yaml")
    assert [model.engine for model in recipe.models.values()] == ["llamacpp", "vllm", "llamacpp"]
    assert list(recipe.models) == ["one", "folder", "one-2"]
    assert recipe.models["folder"].model_dump()["template"] == {"thinking": False}
    assert hub.requests == []


def test_the_aggregator_is_one_of_the_proposers_or_another_model() -> None:
    assert call("o/thinks", "o/small-GGUF", "-a", "o/thinks", *CARD).exit_code == 0
    assert load("mixture.yaml").aggregator.model == "thinks"
    other = call("b.yaml", "o/thinks", "o/thinks", "--aggregator", "o/small-GGUF", *CARD)
    assert other.exit_code == 0, other.stderr
    recipe = load("b.yaml")
    assert (recipe.aggregator.model, recipe.samples) == ("small", (2,))
    assert [proposer.model for proposer in recipe.proposers()] == ["thinks"]
    assert "the last one" not in other.stderr


def test_a_single_model_proposes_to_itself_however_it_is_named() -> None:
    assert call("a.yaml", "-a", "o/thinks", *CARD).exit_code == 0
    assert call("b.yaml", "o/thinks", *CARD).exit_code == 0
    recipes = load("a.yaml"), load("b.yaml")
    assert [(recipe.samples, recipe.aggregator.model) for recipe in recipes] == [((3,), "thinks")] * 2


def test_samples_are_proposals_of_each_model() -> None:
    assert call("o/thinks", "o/small-GGUF", "--samples", "2", *CARD).exit_code == 0
    assert load("mixture.yaml").samples == (4,)


def test_a_file_is_replaced_only_by_force(hub: FakeHub) -> None:
    Path("mixture.yaml").write_text("precious")
    assert (
        refused("o/thinks", *CARD) == "mixture.yaml exists: give another name, or --force to replace it"
    )
    assert hub.requests == []
    assert call("o/thinks", "--force", *CARD).exit_code == 0
    assert load("mixture.yaml").name == "mixture"
    assert [path.name for path in Path().iterdir()] == ["mixture.yaml"]


def test_a_folder_that_is_not_there_is_said_before_the_hub_is_asked(hub: FakeHub) -> None:
    assert refused("no/such/x.yaml", "o/thinks").startswith("cannot write no/such/x.yaml: there is no ")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["Qwen/Qwen2.5-7B-Instrct-AWQ"],
            "Qwen/Qwen2.5-7B-Instrct-AWQ: the Hub has no repository Qwen/Qwen2.5-7B-Instrct-AWQ; "
            "did you mean Qwen/Qwen2.5-7B-Instruct-AWQ?",
        ),
        (
            ["nobody/nothing"],
            "nobody/nothing: the Hub has no repository nobody/nothing, or it is private: then run "
            "`hf auth login`",
        ),
        (
            ["o/small-GGUF:Q8_1"],
            "o/small-GGUF has no Q8_1 (it has Q4_K_M, Q8_0); did you mean Q8_0?",
        ),
        (
            ["o/small-GGUF/a-Q4_K_S.gguf"],
            "o/small-GGUF has no file a-Q4_K_S.gguf; did you mean a-Q4_K_M.gguf?",
        ),
        (
            ["qwen"],
            "'qwen' is no file or folder here, and no id of the Hub such as owner/name, "
            "owner/name:Q4_K_M or owner/name/file.gguf",
        ),
        (["", "o/thinks"], "'' is no file or folder here, and no id of the Hub such as owner/name"),
        (["."], "the folder . has no config.json and no GGUF file"),
        (["./none.gguf"], "'./none.gguf' is no file or folder here, and no id of the Hub such as"),
        (["o/thinks@v9"], "o/thinks@v9: it has no revision 'v9'"),
        (["o/gated"], "o/gated: its licence has to be accepted: do so at "),
        (["o/pickles"], "o/pickles: only safetensors are loaded, and there are none: 'model.bin' is a"),
        (["mine.yaml"], "name at least one model: slimmoa new mine.yaml owner/name other/name"),
    ],
    ids=[
        "typo",
        "unknown",
        "bits",
        "file",
        "word",
        "empty",
        "folder",
        "path",
        "revision",
        "gated",
        "pickle",
        "none",
    ],
)
def test_a_name_that_means_no_model_is_said_in_one_line(
    hub: FakeHub, names: list[str], message: str
) -> None:
    hub.repos["o/pickles"] = FakeRepo({"config.json": json.dumps(CONFIG).encode(), "model.bin": b"x"})
    assert refused(*names, *CARD).startswith(message)


def test_a_gate_is_opened_by_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused("o/gated", *CARD)
    assert line.endswith("then run `hf auth login`, or set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "the token of this machine may not read it: accept the licence at " in refused(
        "o/gated", *CARD
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert call("o/gated", *CARD).exit_code == 0


def test_without_a_network_it_says_what_a_plan_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("o/thinks", *CARD).exit_code == 0
    point_client_at(NO_HUB, tmp_path, monkeypatch)
    line = refused("b.yaml", "o/other", *CARD)
    assert line.startswith(f"o/other: the Hub ({NO_HUB}) cannot be reached: ")
    assert line.endswith(
        "; a plan needs the sizes of its weights: try again with a network, or name a GGUF file or a "
        "model's folder of this machine"
    )
    again = call("b.yaml", "o/thinks", "Qwen/Qwen2.5-7B-Instruct-AWQ", *CARD)  # both are known here
    assert again.exit_code == 0, again.stderr


def test_models_that_do_not_fit_are_refused_with_sums_and_advice(hub: FakeHub) -> None:
    found = call("Qwen/Qwen2.5-72B-Instruct-AWQ", "--card", "RTX-4090")
    assert found.exit_code == 1
    assert "the Hub has no repository" in found.stderr
    big = json.dumps(CONFIG | {"num_hidden_layers": 2000, "hidden_size": 2048}).encode()
    hub.repos["o/big"] = FakeRepo(checkpoint() | {"config.json": big})
    found = call("o/big", "--card", "RTX-4060-Ti-16GB")
    assert found.exit_code == 1
    lines = found.stderr.splitlines()
    assert lines[0] == "error: The models of 'mixture' do not fit, not even if they take turns."
    assert "GiB = weights" in lines[1]
    assert lines[-1].startswith("It fits ")
    assert list(Path().iterdir()) == []


def test_on_a_cpu_answers_are_short_and_vllm_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.cards.detect.detect_gpus", list)
    monkeypatch.setattr(
        "actors.engines.installed.find_spec", lambda name: None if name == "vllm" else name
    )
    written = call("o/small-GGUF", "o/thinks")
    assert written.exit_code == 0, written.stderr
    assert "it needs vLLM, which is not installed" in written.stderr.splitlines()
    recipe = load("mixture.yaml")
    assert {p.sampling.max_tokens for p in recipe.proposers()} == {256}
    assert recipe.models["small"].model_dump()["prefill_tokens"] == 128
