"""Calls of tools as a grammar of llguidance, which xllamacpp's build of llama.cpp has.

A call has a known name, and arguments that fit the tool's schema. Parts of the schema to which
llama.cpp cannot hold an answer (`configs/held_schemas.py`) are left out. Many clients did not write the
schemas of their tools themselves, and must not lose all tools because of one such part.

The notation is Lark's, with JSON schemas in it (docs/syntax.md of llguidance 1.0).
"""

import json
from typing import Any

from actors.engines.llamacpp_schema import one_line
from actors.text.tool_prompt import BEGIN, END
from configs.errors import BadRequest
from configs.tool_use import ToolUse

ANY_TEXT = rf"""FREE: /(.|\n)*/ & ~/(.|\n)*{BEGIN}(.|\n)*/
before[lazy]: /(.|\n)*{BEGIN}/"""
"""A text without a call, and the shortest text that ends with the mark of a call."""


def tool_grammar(use: ToolUse, form: dict[str, Any] | None) -> str:
    """The grammar that holds an answer to its calls.

    1. The model has to call a tool: its whole answer is calls.
    2. It may call tools, and its text has a form: its answer is calls or that form.
    3. It may call tools or write any text: the calls stand behind the text, or there are none.

    Args:
        use: the tools.
        form: the form of the answer's text (`configs.extra_parameters.Structure`); None for any text.

    Raises:
        BadRequest: the form is a grammar, which cannot stand beside calls.
    """
    start = [f'start: "{BEGIN}" calls']
    if use.choice == "auto" and form is None:  # 3
        start = ["start: FREE | before calls", ANY_TEXT]
    elif use.choice == "auto":  # 2
        start = [f'start: "{BEGIN}" calls | form', f"form: {_form(form or {})}"]
    heads = [f"{_literal(json.dumps(tool.name))} arguments t{n}" for n, tool in enumerate(use.tools)]
    more = f' ( "\\n{BEGIN}" call )*' if use.parallel else ""
    schemas = [
        f"t{n}: %json {json.dumps(one_line(t.schema_of_arguments, leniently=True))}"
        for n, t in enumerate(use.tools)
    ]
    rules = [
        f"calls: call{more}",
        rf'call: "\n{{\"name\": " ( {" | ".join(heads)} ) "}}\n{END}"',
        r'arguments: ", \"arguments\": "',
    ]
    return "\n".join(["%llguidance {}", *start, *rules, *schemas])


def _form(form: dict[str, Any]) -> str:
    if "grammar" in form:
        message = "llama.cpp cannot hold an answer to a grammar that may also call tools"
        raise BadRequest(message, param="grammar")
    if "choice" in form:
        return " | ".join(map(_literal, form["choice"]))
    return f"%json {json.dumps(one_line(form.get('json_schema', {'type': 'object'})))}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
