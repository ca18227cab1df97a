"""A benchmark's own temperatures take the place of the recipe's, for every call of an answer."""

from pathlib import Path

import pytest

from jobs.identity import to_generator
from jobs.records import Row
from jobs.sets import load_set
from jobs.variants import alone, at_temperature, mixture
from tests.unit.jobs.answering import MIX, Bench, recipe
from tests.unit.jobs.sets.set_files import DATA, needs_data

pytestmark = pytest.mark.usefixtures("written_at_once")


async def test_each_row_is_answered_at_its_own_temperature(bench: Bench) -> None:
    hot = {"model": "z", "sampling": {"temperature": 1.5}}
    mix = mixture(recipe(["a", "b"], aggregator=hot))
    bench.store.add_rows([Row(0, ("cold", "again"), temperature=0.0), Row(1, ("own",))])
    await bench.run(mix)
    asked: dict[str, set[tuple[str, float | None]]] = {"cold": set(), "own": set()}
    for call in bench.models.asked:
        row = "cold" if "cold" in call.text else "own"
        asked[row].add((call.model, call.sampling.temperature))
    assert asked == {
        "cold": {("a", 0.0), ("b", 0.0), ("z", 0.0)},
        "own": {("a", None), ("b", None), ("z", 1.5)},
    }


async def test_a_model_alone_is_asked_at_the_rows_temperature(bench: Bench) -> None:
    bench.store.add_rows([Row(0, ("cold",), temperature=0.1)])
    await bench.run(alone(recipe(), "a"))
    assert [call.sampling.temperature for call in bench.models.asked] == [0.1]


def test_answers_at_the_rows_temperatures_are_another_generators() -> None:
    identities = dict.fromkeys("abcyz", "1")
    for variant in (MIX, alone(recipe(), "a")):
        plain = to_generator(variant, identities, 0)
        assert to_generator(variant, identities, 0, row_temperatures=True).identity != plain.identity
        assert to_generator(variant, identities, 0, row_temperatures=False) == plain


def test_only_the_temperature_changes() -> None:
    tempered = at_temperature(MIX, 0.3)
    back = {part.model: part.sampling.temperature for part in MIX.recipe.proposers()}
    assert {p.sampling.temperature for p in tempered.recipe.proposers()} == {0.3}
    assert tempered.recipe.aggregator.sampling.temperature == 0.3
    assert back == dict.fromkeys("ab")  # the original stays as it is
    assert tempered.name == MIX.name


def test_the_store_knows_whether_rows_have_temperatures(bench: Bench) -> None:
    bench.store.add_rows([Row(0, ("a",))])
    assert not bench.store.has_temperatures()
    bench.store.add_rows([Row(1, ("b",), temperature=0.0)])
    assert bench.store.has_temperatures()


@needs_data
def test_mt_bench_has_the_temperatures_of_fastchat() -> None:
    path = DATA / "mt_bench.jsonl"
    found = {(row.category, row.temperature) for row in load_set(path).rows}
    assert found == {
        ("writing", 0.7),
        ("roleplay", 0.7),
        ("extraction", 0.0),
        ("math", 0.0),
        ("coding", 0.0),
        ("reasoning", 0.0),
        ("stem", 0.1),
        ("humanities", 0.1),
    }
    own = load_set(path, own_temperatures=False)
    assert {row.temperature for row in own.rows} == {None}
    assert own.identity != load_set(path).identity


def test_other_sets_leave_the_temperature_to_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('[{"prompt": "a", "category": "math", "id": 1}]')
    assert [row.temperature for row in load_set(path).rows] == [None]
