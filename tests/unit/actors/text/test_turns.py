"""Conversations in the forms that chat templates take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import Message
from actors.text.turns import Form, TakenForm, fold_system, other_form, words_of_template
from configs.errors import TemplateRefused

NAMES = {"s": "system", "u": "user", "a": "assistant"}


def conversation(roles: str) -> list[Message]:
    return [Message(role=NAMES[role], content=f"{role}{n}") for n, role in enumerate(roles)]


def shown(messages: object) -> str:
    assert isinstance(messages, list)
    return " ".join(f"{m['role'][0]}:{m['content']}".replace("\n\n", "+") for m in messages)


@pytest.mark.parametrize(
    ("form", "roles", "expected"),
    [
        (Form(), "ssuau", "s:s0 s:s1 u:u2 a:a3 u:u4"),
        (Form("first"), "ssuasu", "s:s0+s1 u:u2 a:a3 u:s4+u5"),
        (Form("first"), "us", "u:u0 u:s1"),
        (Form("nowhere"), "suasu", "u:s0+u1 a:a2 u:s3+u4"),
        (Form("nowhere"), "ss", "u:s0+s1"),
        (Form("nowhere"), "uas", "u:u0 a:a1 u:s2"),
        (Form("nowhere"), "usa", "u:u0 u:s1 a:a2"),
        (Form("nowhere"), "sa", "u:s0 a:a1"),
        (Form("nowhere"), "uasa", "u:u0 a:a1 u:s2 a:a3"),
        (Form("first"), "susa", "s:s0 u:u1 u:s2 a:a3"),
        (Form("nowhere", alternates=True), "usa", "u:u0+s1 a:a2"),
        (Form(needs_user=True), "sa", "u:s0 a:a1"),
        (Form(alternates=True), "suuaau", "s:s0 u:u1+u2 a:a3+a4 u:u5"),
        (Form(alternates=True), "au", "u:Hello. a:a0 u:u1"),
        (Form(alternates=True), "sau", "s:s0 u:Hello. a:a1 u:u2"),
        (Form("first", alternates=True), "suus", "s:s0 u:u1+u2+s3"),
        (Form("nowhere", alternates=True), "suusa", "u:s0+u1+u2+s3 a:a4"),
        (Form(needs_user=True), "s", "u:s0"),
        (Form(needs_user=True), "su", "s:s0 u:u1"),
        (Form("first", needs_user=True), "ss", "u:s0+s1"),
    ],
    ids=str,
)
def test_a_conversation_takes_a_form(form: Form, roles: str, expected: str) -> None:
    messages = conversation(roles)
    assert shown(form.apply(messages)) == expected
    assert messages == conversation(roles)


FORMS = st.builds(Form, st.sampled_from(["anywhere", "first", "nowhere"]), st.booleans(), st.booleans())


@given(FORMS, st.text("sua", min_size=1, max_size=8))
def test_no_word_is_lost_and_the_form_holds(form: Form, roles: str) -> None:
    taken = list(form.apply(conversation(roles)))
    text = "\n\n".join(message["content"] for message in taken)
    assert sorted(text.replace("Hello.\n\n", "").split("\n\n")) == sorted(
        message["content"] for message in conversation(roles)
    )
    systems = [n for n, message in enumerate(taken) if message["role"] == "system"]
    if form.system == "nowhere":
        assert systems == []
    if form.system == "first":
        assert systems in ([], [0])
    if form.alternates and form.system != "anywhere":
        turns = [m["role"] for m in taken if m["role"] != "system"]
        assert turns == [("user", "assistant")[n % 2] for n in range(len(turns))]
    if form.needs_user and form.system == "nowhere":
        assert "a" in roles or any(message["role"] == "user" for message in taken)


@pytest.mark.parametrize(
    ("error", "roles", "form"),
    [
        ("System role not supported", "su", Form("nowhere")),
        ("System message must be at the beginning.", "suasu", Form("first")),
        ("No user query found in messages.", "s", Form(needs_user=True)),
        ("roles must alternate", "uu", Form(alternates=True)),
        ("roles must alternate", "usu", Form("first", alternates=True)),
        ("roles must alternate", "ua", None),
        ("System role not supported", "ua", None),
        ("temperature is out of range", "suu", None),
        ("Jinja Exception: not with me", "suu", Form("nowhere")),
        ("Jinja Exception: not with me", "uu", Form("nowhere", alternates=True)),
        ("jinja2.exceptions.TemplateError: System role not supported", "su", Form("nowhere")),
    ],
)
def test_the_words_of_a_refusal_name_the_next_form(error: str, roles: str, form: Form | None) -> None:
    assert other_form(error, Form(), conversation(roles)) == form


def test_the_templates_own_words_count_and_not_its_source() -> None:
    error = (
        "in source:\n{{ raise_exception('roles must alternate') }}\nError: Jinja Exception: Only text"
    )
    assert words_of_template(error) == "Only text"


async def test_a_form_is_remembered_once_it_was_taken() -> None:
    taken, asked = TakenForm(), []

    async def attempt(messages: object) -> int:
        asked.append(shown(list(messages)))  # type: ignore[call-overload]
        if asked[-1].startswith("s"):
            raise TemplateRefused("Jinja Exception: System role not supported")
        return 7

    for _ in range(2):
        assert await taken.run(conversation("su"), attempt) == 7
    assert asked == ["s:s0 u:u1", "u:s0+u1", "u:s0+u1"]


async def test_a_form_that_is_not_taken_is_not_remembered() -> None:
    taken = TakenForm()

    async def attempt(_: object) -> int:
        raise TemplateRefused("Jinja Exception: never")

    with pytest.raises(TemplateRefused):
        await taken.run(conversation("suu"), attempt)
    assert taken.form == Form()


@pytest.mark.parametrize("roles", ["su", "ua", "uasu", "ss"])
def test_system_messages_go_in_front_of_the_next_user_message(roles: str) -> None:
    folded = {"su": "u:s0+u1", "ua": "u:u0 a:a1", "uasu": "u:u0 a:a1 u:s2+u3", "ss": "u:s0+s1"}
    assert shown(fold_system(conversation(roles))) == folded[roles]
