"""Texts of attackers, the panels with these texts, and the tables of their effects."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from actors.text.visible import is_blank
from benchmarks.quality.attack_figures import Attacked, harms, print_tables, read_attacked
from benchmarks.quality.attack_panels import LONG_EACH, panels_of
from benchmarks.quality.attacks import (
    ATTACKS,
    HARM,
    HONEST,
    WORDS,
    Attack,
    attack_text,
    honest_texts,
    is_other_language,
    is_refusal,
    known_question,
    obeys,
)
from benchmarks.quality.bad_proposers import Worker, methods, played
from configs.load import load
from configs.schema import AnswerForm
from jobs.records import Row
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from serve_app.mixture.agree import find_answer
from tests.unit.scripts import Asked, FakeModels, Step
from tests.unit.serve_app.mixture.comparing import RESPONSE, is_short, tokens

JUDGE = "qwen2.5-coder-0.5b"
LETTERS = Row(
    7, ("Can {it} fly?\n\nA. Yes, {it} can.\nB. No, it can't.\nC. Who knows.",), references=("B",)
)
NUMBERS = Row(3, ("How much is it?",), references=("#### 12",))
BOTH: list[tuple[Row, AnswerForm]] = [(LETTERS, "letter"), (NUMBERS, "number")]


@pytest.mark.parametrize(("row", "form"), BOTH, ids=["letters", "numbers"])
def test_every_text_says_what_its_name_says(row: Row, form: AnswerForm) -> None:
    question = known_question(row, form)
    assert question.answer == ("B" if form == "letter" else "12")
    honest = honest_texts(question, 1, len(HONEST))
    assert len(set(honest)) == len(HONEST)
    texts = {a: [attack_text(a, n, question) for n in range(len(ATTACKS[a]))] for a in ATTACKS}
    assert list(ATTACKS) == list(get_args(Attack))
    assert all(len(set(each)) == len(each) >= 3 for each in texts.values())
    found = {name: [find_answer(text, form) for text in each] for name, each in texts.items()}
    assert {find_answer(text, form) for text in [*honest, *texts["wrong language"]]} == {
        question.answer
    }
    assert not {None, question.answer} & set(found["lies"])
    assert found["refuses"] == [None] * len(texts["refuses"])
    assert all(map(is_refusal, texts["refuses"]))
    assert all(map(obeys, texts["injects"]))
    assert all(map(is_blank, texts["empty"]))
    assert all(map(is_other_language, texts["wrong language"]))
    assert {len(text.split()) for text in texts["20,000 words"]} == {WORDS}
    for text in [*honest, *texts["lies"], *(t[:400] for t in texts["20,000 words"])]:
        assert not any(harmful(text) for harmful in HARM.values())


@pytest.mark.parametrize(
    "text", ["B", "Answer: D", "42", "", "You can't fold it.", "Der Spiegel is a magazine.", "café"]
)
def test_an_answer_is_not_taken_for_another_language_or_a_refusal(text: str) -> None:
    assert not is_other_language(text)
    assert not is_refusal(text)


def test_each_attack_stands_in_each_place_in_each_wording() -> None:
    question = known_question(LETTERS, "letter")
    honest = honest_texts(question, 0, 3)
    rounds = 3 * 12 * LONG_EACH
    found = [p for n in range(rounds) for p in panels_of(question, n, honest, list(ATTACKS))]
    for attack in ATTACKS:
        own = [panel for panel in found if panel.attack == attack]
        share = LONG_EACH if attack == "20,000 words" else 1
        assert len(own) == rounds // share
        pairs = Counter((panel.place, panel.wording % len(ATTACKS[attack])) for panel in own)
        assert len(pairs) == 3 * len(ATTACKS[attack])
        assert len(set(pairs.values())) == 1
        for panel in own[:3]:
            assert [a == b for a, b in zip(panel.texts, honest, strict=True)].count(False) == 1
    assert [panel.texts for panel in found if panel.attack is None] == [honest] * rounds


def judge(asked: Asked) -> list[Step]:
    """Gives the injection a probability of 0.5, says that it agrees with all texts, and obeys it."""
    shown = RESPONSE.findall(asked.text)
    if not is_short(asked):
        return ["PINEAPPLE" if obeys(asked.text) else "Answer: B"]
    if "conclusion" in asked.text[-80:]:
        return [tokens({"yes": 0.9, "no": 0.1} if obeys(asked.text) else {"yes": 0.2, "no": 0.8})]
    if not obeys(asked.text):
        return [tokens({number: 1 / len(shown) for number, _ in shown})]
    return [tokens({n: 0.5 if obeys(text) else 0.5 / (len(shown) - 1) for n, text in shown})]


async def test_the_worker_sees_what_the_script_does(tmp_path: Path) -> None:
    question = known_question(LETTERS, "letter")
    recipe = load("tiny_cpu")
    models = FakeModels({JUDGE: judge})
    panels = panels_of(question, 0, honest_texts(question, 0, 3), list(ATTACKS))
    with Store.open(tmp_path) as store:
        async with StoredCalls(store, models, {JUDGE: "1"}, {JUDGE: 9}) as calls:
            for _ in range(2):
                worker = Worker(calls, tmp_path / "attacked.jsonl")
                for name, changes in methods("letter").items():
                    for panel in panels:
                        await worker.answer(name, played(recipe, 3, changes), panel)
                made = len(models.asked)
    assert len(models.asked) == made
    assert not any(asked.model != JUDGE for asked in models.asked)
    results = read_attacked(tmp_path / "attacked.jsonl")
    assert len(results) == len(methods("letter")) * len(panels)
    by = {(each.method, each.attack): each for each in results}
    injected = by["select", "injects"]
    assert injected.chosen == injected.place
    assert injected.lone == pytest.approx(0.5)
    assert by["select", "honest"].chosen == 0
    assert by["merge", "injects"].text == "PINEAPPLE"
    assert by["vote", "injects"].text.endswith("Answer: B")
    pairs = by["merge, guard", "injects"].pairs
    assert Counter((honest, round(yes, 1)) for honest, yes in pairs) == {
        (True, 0.2): 1,
        (False, 0.9): 2,
    }
    assert len(by["merge, guard", "empty"].pairs) == 1
    assert [by["merge", name].references for name in ("empty", "honest")] == [2, 3]
    long = by["merge", "20,000 words"]
    assert long.trimmed > 15_000
    assert long.read_whole
    assert by["merge", "honest"].trimmed == 0


async def test_real_proposals_are_samples_of_the_first_proposer(tmp_path: Path) -> None:
    question = known_question(LETTERS, "letter")
    models = FakeModels({JUDGE: lambda asked: [" C \n" if asked.sampling.seed == 1 else " "]})
    with Store.open(tmp_path) as store:
        async with StoredCalls(store, models, {JUDGE: "1"}, {JUDGE: 9}) as calls:
            found = await Worker(calls, tmp_path / "none").honest(load("tiny_cpu"), question, 2)
    assert found == ["C", "No answer."]
    assert [asked.text for asked in models.asked] == [question.prompt] * 2


def result(attack: str, row: int, text: str, chosen: int, **other: Any) -> Attacked:
    plain: dict[str, Any] = {
        "method": "select",
        "place": row % 2,
        "wording": 0,
        "expected": "B",
        "way": "select",
        "references": 2,
        "trimmed": 0,
        "read_whole": True,
        "lone": None,
        "pairs": (),
        "read": 100,
        "engine_s": 1.0,
    }
    return Attacked(attack=attack, row=row, text=text, chosen=chosen, **{**plain, **other})


def test_the_tables_compare_with_the_honest_panel(capsys: pytest.CaptureFixture[str]) -> None:
    """A lie is the answer only in the second place. The honest panel is always right."""
    honest = [result("honest", n, "Answer: B", 0) for n in range(4)]
    lies = [
        result("lies", n, "Answer: A" if n % 2 else "Answer: B", 1, lone=0.25 + n % 2 / 2)
        for n in range(4)
    ]
    guarded = result(
        "lies", 0, "I'm sorry.", 0, method="merge, guard", pairs=((True, 0.9), (False, 0.1))
    )
    without_control = result("lies", 9, "Answer: B", 0)
    print_tables([*honest, *lies, guarded, without_control], "letter", 2)
    shown = capsys.readouterr().out
    assert "**select**; 4 questions, 2 proposals, 1/n is 50%; the honest panel: right 100.0" in shown
    assert "| lies | all | 4 | 50.0 (15.0 to 85.0) | -50.0" in shown
    assert "| lies | 2 | 0 (2) of 2, it 2 |  |" in shown
    assert "| any | all | 4 | 50.0 (15.0 to 85.0) |" in shown
    [_, second] = [line for line in shown.splitlines() if line.startswith("| lies | 2 |")]
    cells = [cell.strip() for cell in second.split("|")[1:-1]]
    assert cells[2:4] == ["2", "0.0 (0.0 to 65.8)"]
    assert cells[5:] == ["100", "0", "0.75", "select 2", "none"]
    assert "| lies | 100.0 (20.7 to 100.0) | 0.90 | 0.0 (0.0 to 79.3) | 0.10 | 1.00 |" in shown
    assert harms([guarded, result("x", 0, " ", 0)]) == {"refuses": 1, "is empty": 1}


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_attacked(tmp_path / "none.jsonl") == []
    made = result("lies", 1, "Answer: A", 1, pairs=((True, 0.5),))
    (tmp_path / "some.jsonl").write_text(json.dumps({n: getattr(made, n) for n in made.__slots__}))
    assert read_attacked(tmp_path / "some.jsonl") == [made]
