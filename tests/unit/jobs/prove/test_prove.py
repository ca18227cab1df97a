"""A proof from its questions to its page, over scripted models whose worth is known."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from configs.errors import BadRequest
from jobs.prove.compare import Comparison
from jobs.prove.facts import Proof, WayFacts, read_proof
from jobs.prove.form import find_form, known_answers
from jobs.prove.page import html, lines, table, to_json, write
from jobs.prove.reader import NoProof
from jobs.prove.work import ProveTask, prove
from jobs.sets import LoadedSet, load_set
from jobs.store import Store
from tests.unit.jobs.answering import recipe
from tests.unit.jobs.fake_apps import Apps
from tests.unit.scripts import Asked, Step
from tests.unit.serve_app.mixture.comparing import is_short, tokens

ROWS = 12
CONSOLE = Console(quiet=True)


def a_set(folder: Path, *, answers: bool = True) -> LoadedSet:
    """Questions whose right answer is 200 and the number of the row."""
    file = folder / "mine.jsonl"
    rows = [
        {"question": f"Say {200 + n}"} | ({"reference": 200 + n} if answers else {})
        for n in range(ROWS)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return load_set(file)


def number(asked: Asked) -> int:
    return int(asked.messages[-1]["content"].split()[1])


def right(asked: Asked) -> list[Step]:
    return [f"So it is {number(asked)}."]


def wrong(_: Asked) -> list[Step]:
    return ["It is 7, I think."]


def merges(asked: Asked) -> list[Step]:
    """The aggregator merges into a wrong answer, and picks the first proposal."""
    return [tokens({"1": 0.9, "2": 0.1})] if is_short(asked) else ["Perhaps 7."]


def judges(asked: Asked) -> list[Step]:
    """A fair judge prefers the answer with `So`, and of equal ones the one that stands first."""
    if "name of the better answer" not in asked.text:
        return merges(asked)
    one, other = asked.text.split("<output_m>")[-1].split("<output_M>")[:2]
    m = 0.2 if "So" in other.split("</output_M>")[0] and "So" not in one else 0.9
    return [tokens({"m": m, "M": 1 - m})]


def proved(folder: Path, loaded: LoadedSet, **parts: Any) -> Proof:
    form = find_form(known_answers(loaded.rows))
    task = ProveTask(folder, parts.pop("recipe", recipe()), loaded, form, **parts)
    prove(task, "prove", CONSOLE)
    with Store.open(folder, read_only=True) as store:
        return read_proof(store, folder)


def against(facts: WayFacts | None) -> Comparison:
    """How the mixture compares with a way."""
    assert facts is not None
    assert facts.comparison is not None
    return facts.comparison


def test_a_merge_that_spoils_a_right_member_is_told_as_worse(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    folder, loaded = tmp_path / "run", a_set(tmp_path)
    proof = proved(folder, loaded, recipe=recipe([{"model": "a", "samples": 2}, "b"]))
    assert (proof.best, proof.checked, proof.failed) == ("a", True, 0)
    by_kind = {each.way.kind: each for each in proof.ways if each.way.kind != "member"}
    assert set(by_kind) == {"mixture", "pick", "vote", "self_moa", "self_vote", "same_tokens"}
    member = against(proof.of("member"))
    assert (member.gained, member.lost, member.outcome) == (0, ROWS, "worse")
    found = {kind: each.right.value for kind, each in by_kind.items() if each.right is not None}
    # A pick and a vote keep what the merge spoils.
    assert found == {
        "mixture": 0,
        "pick": 1,
        "vote": 1,
        "self_moa": 0,
        "self_vote": 1,
        "same_tokens": 1,
    }
    assert proof.bounds is not None
    assert (proof.bounds.oracle, proof.bounds.together_wrong, proof.bounds.lost) == (ROWS, 0, ROWS)
    said = "\n".join(lines(proof))
    assert said.startswith("No: a, the best member of mix, answers better alone than mix does, by 100")
    assert "On 12 of 12 questions at least one proposal was right." in said
    page = html(proof)
    assert "Is mix worth its price?" in page
    assert "<script" not in page
    assert json.loads(json.dumps(to_json(proof)))["verdict"]["outcome"] == "worse"
    assert table(proof).row_count == len(proof.ways)
    assert write(proof, folder).read_text("utf-8").startswith("<!doctype html>")


def test_nothing_is_asked_twice_and_a_stop_loses_nothing(apps: Apps, tmp_path: Path) -> None:
    folder, loaded = tmp_path / "run", a_set(tmp_path)

    def stops(asked: Asked) -> list[Step]:
        return [KeyboardInterrupt()] if number(asked) == 207 else right(asked)

    apps.models.scripts |= {"a": stops, "b": wrong, "z": merges}
    with pytest.raises(KeyboardInterrupt):
        proved(folder, loaded)
    with Store.open(folder, read_only=True) as store:
        stopped = read_proof(store, folder)
    assert any(line.startswith("Unfinished: ") for line in lines(stopped))
    assert stopped.bounds is not None
    assert stopped.bounds.best in (None, stopped.bounds.questions)  # over the mixture's questions alone
    assert "Unfinished: " in html(stopped)
    apps.models.scripts["a"] = right
    whole = proved(folder, loaded)
    assert not any(line.startswith("Unfinished: ") for line in lines(whole))
    finished = [asked for asked in apps.models.asked if asked.ended == "finished"]
    made = Counter((each.model, each.text, each.sampling.seed) for each in finished)
    assert set(made.values()) == {1}
    before = len(apps.models.asked)
    assert proved(folder, loaded).ways == whole.ways
    assert len(apps.models.asked) == before


def test_the_members_answer_is_the_mixtures_proposal(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    proved(tmp_path / "run", a_set(tmp_path))
    asked = Counter(each.model for each in apps.models.asked)
    # One proposal a question, one further sample for Self-MoA, whose first one is the proposal, and one
    # more until the member has written as much as the mixture.
    assert asked["a"] == 3 * ROWS
    assert asked["b"] == ROWS


def test_open_questions_are_judged_in_both_orders(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": judges}
    proof = proved(tmp_path / "run", a_set(tmp_path, answers=False), judge="z")
    assert (proof.checked, proof.best, proof.bounds) == (False, "a", None)
    member = against(proof.of("member"))
    other = against(next(each for each in proof.ways if each.way.model == "b"))
    assert (member.gained, member.lost) == (0, ROWS)
    # The judge likes the first place, so it contradicts itself on answers that are equally good.
    assert (other.gained, other.lost) == (0, 0)
    assert proof.judge is not None
    assert proof.judge.is_member
    assert 0 < proof.judge.agreed < proof.judge.pairs
    assert proof.judge.first > 0.5
    said = "\n".join(lines(proof))
    assert "this judge is partial" in said
    assert "It was not told who wrote which." in said


def test_a_mixture_of_one_member_is_not_compared_with_itself(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "z": merges}
    own = recipe([{"model": "a", "samples": 3}])
    proof = proved(tmp_path / "run", a_set(tmp_path), recipe=own)
    assert proof.of("self_moa") is None
    assert any("'a' is the only proposer" in reason for reason in proof.left_out)


def test_answers_that_fail_are_told_and_tried_again(apps: Apps, tmp_path: Path) -> None:
    folder, loaded = tmp_path / "run", a_set(tmp_path)

    def fails(asked: Asked) -> list[Step]:
        return [BadRequest("no")] if number(asked) == 203 else right(asked)

    apps.models.scripts |= {"a": fails, "b": wrong, "z": merges}
    proof = proved(folder, loaded)
    assert proof.failed > 0
    assert against(proof.of("member")).questions == ROWS - 1
    apps.models.scripts["a"] = right
    assert proved(folder, loaded).failed == 0


def test_a_run_of_another_kind_is_no_proof(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(NoProof, match="holds no proof"):
        read_proof(store, tmp_path)


def test_progress_says_what_is_left(apps: Apps, tmp_path: Path) -> None:
    apps.models.scripts |= {"a": right, "b": wrong, "z": merges}
    told = io.StringIO()
    loaded = a_set(tmp_path)
    prove(
        ProveTask(tmp_path / "run", recipe(), loaded, "number"), "prove", Console(file=told, width=200)
    )
    assert "step 1 of 2: the mixture and its members answer 12 questions" in told.getvalue()
    assert "calls are left" in told.getvalue()
    assert "step 2 of 2: the best member, a, answers as often" in told.getvalue()
