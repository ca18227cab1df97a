"""The page in a real headless browser, over the real API with scripted engines in one process.

One run of `page_flows.mjs` uses the page as people do, flow by flow, and tells what it saw; the tests
here look at that. A flow that fails leaves screenshots in pytest's temporary folder.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.scores.scoring import score_file
from tests.e2e.browser.installed import CAN_RUN, WHY_NOT, install_browser, run_node

ROOT = Path(__file__).parents[2]
Seen = dict[str, Any]
CLEAN = (
    *("growth", "stop", "keys", "hostile", "agreeing", "limited"),
    *("fuse", "vote", "moving", "keyboard", "phone"),
)

pytestmark = pytest.mark.skipif(not CAN_RUN, reason=WHY_NOT)


@pytest.fixture(scope="module")
def urls() -> Iterator[str]:
    """The endpoints of `page_server.py`, as JSON."""
    command = [sys.executable, "-m", "tests.e2e.browser.page_server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline()
        server.communicate(timeout=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page gave."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def flows(urls: str, folder: Path) -> dict[str, Seen]:
    """What was seen in each flow."""
    told = run_node(install_browser(), "node", "page_flows.mjs", urls, folder)
    found: dict[str, Seen] = json.loads(told)
    print(
        f"screenshots: {folder}; seconds: {[(name, each['seconds']) for name, each in found.items()]}"
    )
    return found


@pytest.fixture
def seen(request: pytest.FixtureRequest, flows: dict[str, Seen]) -> Seen:
    """What was seen in the flow that the test is named after: `test_NAME_...`."""
    name = request.function.__name__.split("_")[1]
    assert "error" not in flows[name], flows[name]["error"]
    return flows[name]


@pytest.mark.parametrize("flow", CLEAN)
def test_nothing_goes_wrong_and_no_other_host_is_asked(flows: dict[str, Seen], flow: str) -> None:
    found = flows[flow]
    assert "error" not in found, found["error"]
    assert (found["said"], found["foreign"], found["violations"]) == ([], [], [])


def test_growth_shows_three_columns_that_grow_at_once(seen: Seen) -> None:
    samples = [sample for sample in seen["samples"] if len(sample) == 3]
    grown = [
        [after["length"] > before["length"] for before, after in zip(*pair, strict=True)]
        for pair in itertools.pairwise(samples)
    ]
    assert all(any(each[place] for each in grown) for place in range(3))
    writing = [sum(column["phase"].startswith("writes") for column in sample) for sample in samples]
    assert max(writing) == 3
    assert [column["name"] for column in seen["columns"]] == [
        "Proposal 1 of 3: llama-70b",
        "Proposal 2 of 3: qwen-72b",
        "Proposal 3 of 3: nemotron",
    ]


def test_growth_shows_which_model_thinks_before_it_writes(seen: Seen) -> None:
    columns = [column for sample in seen["samples"] for column in sample]
    phases = {
        name: [column["phase"] for column in columns if name in column["name"]]
        for name in ("llama-70b", "qwen-72b", "nemotron")
    }
    assert {name for name, said in phases.items() if "thinks" in said} == {"qwen-72b"}
    qwen = phases["qwen-72b"]
    last = len(qwen) - 1 - qwen[::-1].index("thinks")
    assert all(said.startswith(("writes", "done")) for said in qwen[last + 1 :])
    assert "thought" not in seen["after"]
    assert "thinks" in seen["times"]


def test_growth_asks_for_events_and_a_stream(seen: Seen) -> None:
    body = seen["body"]
    assert (body["stream"], body["moa"]["events"]) == (True, True)
    assert body["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]


def test_growth_ends_with_the_answer_and_says_what_was_dropped_and_why(seen: Seen) -> None:
    first, second, third = seen["columns"]
    assert first["phase"].startswith("done in ")
    assert second["phase"].startswith("done in ")
    assert third["phase"].startswith("late ")
    assert third["length"] > 0  # what was written stays
    assert "time was up" in third["detail"]
    assert "molecules of air scatter short waves" in seen["answer"]
    assert seen["answer"].startswith("gemma-9b")
    assert "degraded" in seen["answer"]
    assert seen["reasons"].startswith("nemotron, in layer 1, was late.")


def test_growth_is_told_to_screen_readers_by_its_boundaries_only(seen: Seen) -> None:
    assert seen["log"] == "off"
    said = " ".join(seen["heard"])
    for words in (
        "Layer 1: 3 models asked.",
        "Proposal 1 of 3 done, ",
        "Proposal 2 of 3 done, ",
        "Proposal 3 of 3 dropped: late.",
        "gemma-9b reads the proposals.",
        "Answer done, ",
    ):
        assert said.count(words) == 1, words
    assert "molecules" not in said
    assert seen["focus"] == "composer"


def test_growth_has_the_times_of_all_calls_as_text(seen: Seen) -> None:
    for name in ("llama-70b", "qwen-72b", "nemotron", "gemma-9b"):
        assert name in seen["times"]


def test_growth_survives_a_reload(seen: Seen) -> None:
    assert "Why is the sky blue?" in seen["after"]
    assert seen["after"] == seen["before"]


def test_stop_frees_the_engines_within_a_second(seen: Seen) -> None:
    for each in seen["tries"]:
        assert each["before"]["in_flight"] == 3
        after = each["after"]
        assert after["started"] == after["finished"] + after["cancelled"] > 0
    assert min(each["ms"] for each in seen["tries"]) <= 1000
    assert "stopped" in seen["text"]
    assert seen["focus"] == "composer"


def test_keys_are_asked_for_refused_and_taken(seen: Seen) -> None:
    assert not seen["isSecure"]  # as from another machine of the network
    assert "an API key is needed" in seen["without"]
    assert "this API key is not known here" in seen["wrong"]
    assert "this API key is not known here" in seen["removed"]
    assert "molecules of air scatter short waves" in seen["answer"]  # it had begun with the key


def test_keys_are_sent_in_their_header_alone_and_kept_for_the_tab(seen: Seen, urls: str) -> None:
    key = json.loads(urls)["key"]
    assert seen["withKey"] > 2
    assert seen["inUrls"] == []
    of_tab, of_browser = seen["stores"]
    assert of_tab == [key]
    assert key not in "".join(of_browser)
    assert "an API key is needed" in seen["otherTab"]


def test_hostile_texts_are_harmless(seen: Seen) -> None:
    assert seen["columns"]
    assert all(phase.startswith("done") for phase in seen["columns"])
    assert (seen["attacked"], seen["elements"], seen["handlers"], seen["images"]) == (None, [], [], [])
    assert seen["visible"]
    assert seen["links"]
    for protocol, target, rel in seen["links"]:
        assert (protocol in ("http:", "https:"), target) == (True, "_blank")
        assert {"noopener", "noreferrer"} <= set(rel.split())
    assert seen["ms"] < 2000  # the page still answers


def test_failures_are_told_in_words(seen: Seen) -> None:
    assert "its engine failed" in seen["failed"]
    stood = "a proposal stands in: this is proposal 1 of 1, by llama-70b, as it stands."
    assert f"No model could write the answer, and {stood}" in seen["stood"]
    assert seen["said"] == []


def test_agreeing_proposals_are_the_answer_and_the_third_is_not_needed(seen: Seen) -> None:
    first, second, third = seen["columns"]
    assert first["name"] == "Proposal 1 of 3: llama-70b, the answer"
    assert second["name"] == "Proposal 2 of 3: qwen-72b"
    assert third["phase"] == "not needed"
    how = "Agreed on: proposal 1 of 3, by llama-70b, because 2 of 2 proposals"
    assert how in seen["answer"]
    assert "exit: enough proposals agreed" in seen["answer"]  # in the panel "Why"
    assert "degraded" not in seen["answer"]
    said = " ".join(seen["heard"])
    assert "Proposal 3 of 3 is not needed. The answer is proposal 1 of 3, by llama-70b." in said
    assert "begins the answer" not in said
    assert "reads the proposals" not in said
    assert seen["axe"] == []


def test_limited_requests_say_when_to_try_again(seen: Seen) -> None:
    assert "requests_per_minute is 1 here" in seen["text"]
    assert "econds" in seen["text"]


def test_fuse_asks_the_chosen_aggregator_and_no_proposer(seen: Seen) -> None:
    assert seen["calls"] == 1
    fuse = seen["moa"]["fuse"]
    assert fuse["aggregator"] == "qwen-72b"
    assert "method" not in fuse
    assert seen["methods"] == ["", "select", "select_or_merge"]
    assert [proposal["model"] for proposal in fuse["proposals"]] == ["qwen-72b"]
    assert seen["versions"] == "2 of 2"


def test_vote_is_blind_until_it_is_given(seen: Seen) -> None:
    for words in ("gemma-9b", "llama-70b", "qwen-72b", "tokens", "characters"):
        assert words not in seen["blind"], words
    assert "written by gemma-9b" in seen["revealed"]
    assert seen["canVote"] == 0


def test_vote_can_be_scored(seen: Seen, folder: Path) -> None:
    (row,) = json.loads(seen["votes"])
    assert {row["generator_1"], row["generator_2"]} - {"llama-70b", "qwen-72b"} == {"turns"}
    ((found,),) = score_file(folder / "votes.json", None, None, None, None).scores
    assert found.generator == "turns"
    assert found.baseline in ("llama-70b", "qwen-72b")
    assert (found.n, found.win_rate in (0.0, 100.0)) == (1, True)


def test_moving_chats_to_another_browser_keeps_them(seen: Seen) -> None:
    assert seen["chats"] == 1
    assert "And at night?" in seen["before"]
    assert seen["after"] == seen["before"]
    assert 'its field "format"' in seen["refused"]


def test_keyboard_alone_does_everything(seen: Seen) -> None:
    assert (seen["begins"], seen["stays"], seen["ends"]) == ("composer", "composer", "composer")
    assert seen["question"] == "First line\nSecond line"
    assert seen["large"] == ["qwen-72b"]
    assert set(seen["regions"]) >= {"top", "conversation", "composer"}
    assert "Stop the answer" in seen["help"]
    assert "equally good" in seen["voted"]
    assert seen["unseen"] == []


def test_phone_has_tabs_and_nothing_beside_the_screen(seen: Seen) -> None:
    assert seen["tabs"] == ["Answer", "1", "2", "3", "Time", "Card"]
    assert set(seen["widths"]) == {390}
    assert 0 <= seen["below"] < 60


def test_axe_finds_nothing(seen: Seen) -> None:
    assert seen["axe"] == []
