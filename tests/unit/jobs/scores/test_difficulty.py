"""Difficulties belong to prompts: rows of other prompts get none, and no length-controlled win rate."""

import gzip
import json
import random
from pathlib import Path

import pytest

from jobs.records import Answer, Generator, Row, Verdict
from jobs.scores.columns import PreferencesError
from jobs.scores.difficulty import Difficulties, read_difficulties
from jobs.scores.preferences import Preferences, read_preferences
from jobs.scores.scoring import score_file, score_run
from jobs.scores.stored import preferences_from_store, scores_from_store
from jobs.sets.known_sets import KnownSet, fingerprint, known_set
from jobs.store import Store
from tests.unit.jobs.sets.set_files import DATA, needs_data

PROMPTS = [f"Question {n}?" for n in range(30)]
"""The prompts of the benchmark that the tests put in AlpacaEval's place."""
LENGTHS = [100 + 7 * n for n in range(30)]
"""The lengths of its baseline's answers."""
HARD = {n: n / 10 for n in range(30)}


@pytest.fixture(autouse=True)
def benchmark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of 30 prompts in AlpacaEval's place, except in tests with its data."""
    if "data" in request.node.name:
        return
    known = KnownSet({fingerprint(prompt): n for n, prompt in enumerate(PROMPTS)}, LENGTHS)
    for module in ("preferences", "difficulty", "stored"):
        monkeypatch.setattr(f"jobs.scores.{module}.known_set", lambda _: known)


def official_file(folder: Path) -> Path:
    path = folder / "instruction_difficulty.csv"
    path.write_text(",instruction_difficulty\n" + "".join(f"{n},{v}\n" for n, v in HARD.items()))
    return path


async def run_over(folder: Path, prompts: list[str], baseline: str = "base") -> Path:
    """A run over these prompts in which `one` is judged against a baseline."""
    with Store.open(folder) as store:
        store.add_rows(Row(n, (prompt,)) for n, prompt in enumerate(prompts))
        for name in (baseline, "one"):
            store.add_generator(Generator(name, "file", name))
        known = dict(zip(PROMPTS, LENGTHS, strict=True))
        store.add_answers(Answer(baseline, n, 0, "x" * known.get(p, 9)) for n, p in enumerate(prompts))
        store.add_answers(Answer("one", n, 0, "y" * n) for n in range(len(prompts)))
        for n in range(len(prompts)):
            await store.keep_verdict(
                Verdict("m:pairwise-0123abcd", "pairwise", "one", baseline, n, 0, 1.5)
            )
    return folder


async def test_rows_of_another_set_get_no_length_controlled_win_rate(tmp_path: Path) -> None:
    folder = await run_over(tmp_path, [f"Another {n}" for n in range(20)])
    with pytest.raises(PreferencesError) as caught:
        score_run(folder, official_file(tmp_path), None, None, None)
    assert str(caught.value) == (
        "--difficulty: instruction_difficulty.csv has the difficulties of AlpacaEval's 805 "
        "instructions, and 20 of 20 rows of 'one' have other instructions, first row 0; without "
        "--difficulty the win rates are given, which do not need it"
    )
    ((found,),) = score_run(folder, None, None, None, None).scores
    assert (found.win_rate, found.lc) == (50, None)
    assert "set: 20 of 20 rows are not AlpacaEval's" in found.reasons


async def test_one_row_of_another_set_is_enough(tmp_path: Path) -> None:
    folder = await run_over(tmp_path, [*PROMPTS[:19], "Another"])
    with pytest.raises(PreferencesError, match=r"1 of 20 rows of 'one' .* first row 19"):
        score_run(folder, official_file(tmp_path), None, None, None)


async def test_rows_in_another_order_get_the_difficulties_of_their_prompts(tmp_path: Path) -> None:
    prompts = random.Random(1).sample(PROMPTS, 20)
    folder = await run_over(tmp_path, [f" {prompt}\n" for prompt in prompts])
    difficulties = read_difficulties(official_file(tmp_path))
    with Store.open(folder, read_only=True) as store:
        (preferences,) = preferences_from_store(store, "m:pairwise-0123abcd", "base")
    assert difficulties.of(preferences) == {n: HARD[PROMPTS.index(p)] for n, p in enumerate(prompts)}
    ((found,),) = score_run(folder, official_file(tmp_path), None, None, None).scores
    assert found.lc is not None


async def test_a_file_with_instructions_serves_any_set(tmp_path: Path) -> None:
    folder = await run_over(tmp_path, [f"Another {n}" for n in range(20)])
    path = tmp_path / "own.csv"
    lines = [f"Another {n},{n / 10}\n" for n in range(20)]
    path.write_text("instruction,instruction_difficulty\n" + "".join(lines))
    ((found,),) = score_run(folder, path, None, None, None).scores
    assert found.lc == pytest.approx(50, abs=1)
    path.write_text("instruction,instruction_difficulty\n" + "".join(lines[1:]))
    with pytest.raises(
        PreferencesError, match=r"own.csv has the difficulties of its instructions, and 1"
    ):
        score_run(folder, path, None, None, None)


@pytest.mark.parametrize("changed", [0, 2])
async def test_other_answers_under_the_baselines_name_are_noticed(tmp_path: Path, changed: int) -> None:
    folder = await run_over(tmp_path, PROMPTS, baseline="gpt4_1106_preview")
    with Store.open(folder) as store:
        store.add_answers(Answer("gpt4_1106_preview", n, 0, "short") for n in range(changed))
        (found,) = scores_from_store(store, "m:pairwise-0123abcd", "gpt4_1106_preview")
    noted = f"baseline: {changed} answers are not as long as those of the leaderboard's file"
    assert (noted in found.reasons) == bool(changed)


HEAD = "generator,index,row,preference,len_1,len_2\n"


def judgements(folder: Path, places: list[tuple[str, str, int]], head: str = HEAD) -> Path:
    """A file of judgements with these values of index, row and len_1."""
    path = folder / "judgements.csv"
    lines = [f"one,{index},{row},1.5,{length},{50 + length}\n" for index, row, length in places]
    path.write_text(head + "".join(lines))
    return path


@pytest.mark.parametrize(
    ("places", "known"),
    [
        ([(str(n), str(n), LENGTHS[n]) for n in range(30)], True),
        ([("", str(n), LENGTHS[n]) for n in range(10)], True),  # the first rows
        ([(str(n + 5), str(n), LENGTHS[n + 5]) for n in range(10)], True),  # rows were left out before
        ([("", str(n), LENGTHS[n + (n > 9)]) for n in range(29)], True),  # row 10 was left out
        ([("", str(n), LENGTHS[n + 5]) for n in range(10)], False),
        ([("", str(n), 1000 + n) for n in range(30)], False),
        ([("", str(n), length) for n, length in enumerate(reversed(LENGTHS))], False),
        ([("", str(n), LENGTHS[n % 30]) for n in range(31)], False),
    ],
    ids=["all", "first", "index", "left out", "shifted", "other lengths", "reversed", "more"],
)
def test_the_baselines_lengths_tell_which_rows_a_file_has(
    tmp_path: Path, places: list[tuple[str, str, int]], known: bool
) -> None:
    path = judgements(tmp_path, places)
    (found,) = read_preferences(path)
    assert found.are_positions == known
    assert ("set: the file does not tell its instructions" in found.reasons) != known
    if known:
        ((scored,),) = score_file(path, official_file(tmp_path), None, None, None).scores
        assert scored.lc is not None
    else:
        with pytest.raises(
            PreferencesError, match="do not tell their instructions: give the file a col"
        ):
            score_file(path, official_file(tmp_path), None, None, None)


def test_instructions_in_a_file_tell_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "judgements.jsonl"
    lines = [
        {"instruction": p, "generator": "one", "preference": 1.5, "len_1": 1, "len_2": 2}
        for p in reversed(PROMPTS[:10])
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    (found,) = read_preferences(path)
    assert found.rows == tuple(range(10))
    assert read_difficulties(official_file(tmp_path)).of(found) == {n: HARD[n] for n in range(10)}


@pytest.mark.parametrize("longer", [0, 1])
def test_a_files_baseline_has_to_have_the_leaderboards_lengths(tmp_path: Path, longer: int) -> None:
    path = tmp_path / "judgements.csv"
    lines = [f"{p},one,1.5,{n + longer},2\n" for p, n in zip(PROMPTS, LENGTHS, strict=True)]
    path.write_text("instruction,generator,preference,len_1,len_2\n" + "".join(lines))
    (found,) = read_preferences(path, baseline="gpt4_1106_preview")
    assert len(found.reasons) == longer
    assert all("30 answers are not as long as those" in reason for reason in found.reasons)
    assert read_preferences(path, baseline="mine")[0].reasons == ()


def test_alpaca_evals_annotations_are_read(tmp_path: Path) -> None:
    def annotation(prompt: str, preference: float | None, by: str = "w") -> dict[str, object]:
        outputs = {"output_1": " b ", "output_2": "long"}
        names = {"generator_1": "base", "generator_2": "one", "annotator": by}
        return {"instruction": prompt, **outputs, **names, "preference": preference}

    path = tmp_path / "annotations.json"
    entries = [annotation(PROMPTS[2], 2.0), annotation(PROMPTS[0], None), annotation("Another", 0)]
    path.write_text(json.dumps([*entries, annotation(PROMPTS[2], 1.0, by="another judge")]))
    first, second = read_preferences(path)
    assert (first.generator, first.judge, first.baseline) == ("one", "w", "base")
    assert first.rows[:2] == (0, 2)
    assert first.preferences == (None, 2.0, 1.5)
    assert (first.len_baseline, first.len_generator) == ((3, 3, 3), (4, 4, 4))
    assert first.reasons == ("set: 1 of 3 rows are not AlpacaEval's",)
    assert (second.judge, second.preferences) == ("another judge", (1.0,))
    path.write_text(json.dumps([*entries, annotation("Another", 1)]))
    with pytest.raises(
        PreferencesError, match="row 4, column 'instruction': 'Another' is not a instruct"
    ):
        read_preferences(path)


@pytest.mark.parametrize("head", ["index,instruction_difficulty", ",instruction_difficulty"])
def test_difficulties_come_by_index(tmp_path: Path, head: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"{head}\n0,0.5\n2,-1e-3\n0,0.5\n")  # the gamed file names each index twice
    assert read_difficulties(path) == Difficulties("d.csv", {0: 0.5, 2: -0.001}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,instruction_difficulty\n3,1\n3,2\n", "'2' is not index 3's value above, 1.0"),
        ("index,instruction_difficulty\n3,inf\n", "'inf' is not a finite number"),
        (
            "row,instruction_difficulty\n3,1\n",
            "no column 'index' among ['row', 'instruction_difficulty']",
        ),
        (
            "instruction,instruction_difficulty\na,1\na,2\n",
            "line 3, column 'instruction_difficulty': '2' is not 'a''s value above, 1.0",
        ),
    ],
)
def test_a_difficulty_that_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(PreferencesError) as caught:
        read_difficulties(path)
    assert message in str(caught.value)


@needs_data
def test_the_fingerprints_are_those_of_the_data() -> None:
    known = known_set("alpaca_eval")
    prompts = [
        json.loads(line) for line in (DATA / "alpaca_eval_805.jsonl").read_text("utf-8").splitlines()
    ]
    assert [known.position_of(each["instruction"]) for each in prompts] == list(range(805))
    with gzip.open(DATA / "baseline_gpt4_1106_preview.jsonl.gz", "rt") as file:
        assert [len(json.loads(line)["output"]) for line in file] == known.baseline_lengths
    questions = [json.loads(line) for line in (DATA / "mt_bench.jsonl").read_text("utf-8").splitlines()]
    mt_bench = known_set("mt_bench")
    assert [mt_bench.position_of(each["turns"][0]) for each in questions] == list(range(80))


@needs_data
def test_rows_of_published_data_are_known_although_some_are_left_out() -> None:
    found: list[Preferences] = read_preferences(DATA / "preferences_15models.csv.gz")
    assert {each.generator: len(each.rows) for each in found if len(each.rows) < 805} == {
        "gpt35_turbo_instruct": 804,
        "phi-2": 803,
    }
    assert all(each.are_positions and not each.reasons for each in found)
