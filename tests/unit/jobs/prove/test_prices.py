"""What an answer has cost, by the calls of its events, and how prices are kept."""

from pathlib import Path

from jobs.answer_events import AnswerEvents
from jobs.prove.prices import FILE, Price, keep_price, read_prices
from serve_app.mixture.events import AnswerDone, Answered, Call, ProposalDone, Summary


def call(role: str, seconds: float) -> Call:
    return Call("a", role, 10, 4, seconds)  # type: ignore[arg-type]


def test_a_layer_takes_as_long_as_its_slowest_call_or_as_all_of_them() -> None:
    proposals = [call("proposer", 1.0), call("proposer", 3.0)]
    picks = [call("aggregator", 0.5), call("aggregator", 0.25)]
    last = call("aggregator", 2.0)
    events = AnswerEvents()
    for place, each in enumerate(proposals):
        events.add(ProposalDone(1, place, "a", "text", 0.0, each))
    answered = Answered(model="a", fallback=None, cut=False, finish_reason="stop", call=last)
    summary = Summary(0, answered, (), (), (), (), (*proposals, *picks, last))
    events.add(AnswerDone(summary))
    assert Price.of(events) == Price(5, 50, 20, shortest_s=3.0 + 0.5 + 2.0, longest_s=6.75)


def test_the_last_price_of_an_answer_counts_and_a_cut_line_does_not(tmp_path: Path) -> None:
    assert read_prices(tmp_path) == {}
    one, other = Price(1, 2, 3, 4.0, 5.0), Price(3, 2, 1, 6.0, 7.0)
    keep_price(tmp_path, "mix", 0, one)
    keep_price(tmp_path, "mix", 0, other)
    keep_price(tmp_path, "a", 7, one)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"generator": "a", "row": 8, "cal')
    assert read_prices(tmp_path) == {"mix": {0: other}, "a": {7: one}}
    assert Price.mean([one, other]) == Price(2, 2, 2, 5.0, 6.0)
