"""Which answers are still to be asked for, and the page that shows them."""

from benchmarks.quality.answers import QUESTIONS, answerers, missing, page
from configs.load import load


def row(who: str, kind: str, text: str = "An answer.", seconds: float = 1.5) -> dict[str, object]:
    return {"who": who, "kind": kind, "seconds": seconds, "text": text}


def test_a_second_run_asks_only_for_what_the_first_one_lacks() -> None:
    who = answerers(load("small_cpu"))
    assert who == ["slimmoa-small", "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"]
    assert len(missing([], who)) == 3 * len(QUESTIONS) == 30
    rows = [row(name, kind) for name in who for kind in QUESTIONS if kind != "mail"]
    assert missing(rows, who) == [(name, "mail") for name in who]
    # The 0.5B is a model of both recipes, and is asked once.
    assert {name for name, _ in missing(rows, answerers(load("tiny_cpu")))} == {
        "slimmoa-tiny",
        "smollm2-135m",
        "qwen2.5-coder-0.5b",
    }
    assert ("qwen2.5-coder-0.5b", "code") not in missing(rows, answerers(load("tiny_cpu")))


def test_the_page_has_each_text_in_a_fence_that_the_text_does_not_close() -> None:
    rows = [row("mix", "fact", "~~~\n# No heading of the page\n~~~"), row("one", "fact", seconds=20.0)]
    shown = page(rows)
    assert "| fact | 1.5 | 20.0 |" in shown
    assert "| mail |  |  |" in shown
    assert "~~~~text\n~~~\n# No heading of the page\n~~~\n~~~~\n" in shown
    assert shown.index("`mix`**, 1.5 s") < shown.index("`one`**, 20.0 s")
