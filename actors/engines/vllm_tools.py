"""Calls of tools as the structural tag of vLLM and XGrammar: a call has a known name and arguments that
fit the tool's schema. Source: xgrammar/structural_tag.py of XGrammar 0.2. Imports no vLLM."""

import json
from typing import Any

from actors.text.tool_prompt import BEGIN, END
from configs.tool_use import ToolUse


def structural_tag(use: ToolUse, form: dict[str, Any] | None) -> str:
    """The tag that holds an answer to its calls, as JSON.

    Args:
        use: the tools.
        form: the form of the answer's text (`configs.extra_parameters.Structure`); None for any text.
    """
    calls: dict[str, Any] = {
        "type": "triggered_tags",
        "triggers": [BEGIN],
        "tags": [
            {
                "type": "tag",
                "begin": f'{BEGIN}\n{{"name": {json.dumps(tool.name)}, "arguments": ',
                "content": {"type": "json_schema", "json_schema": tool.schema_of_arguments},
                "end": f"}}\n{END}",
            }
            for tool in use.tools
        ],
        "at_least_one": use.choice == "required" or form is not None,
        "stop_after_first": not use.parallel,
    }
    text = calls
    if form is not None and use.choice == "auto":
        text = {"type": "or", "elements": [calls, _form(form)]}
    return json.dumps({"type": "structural_tag", "format": text})


def _form(form: dict[str, Any]) -> dict[str, Any]:
    if "regex" in form:
        return {"type": "regex", "pattern": form["regex"]}
    if "grammar" in form:
        return {"type": "grammar", "grammar": form["grammar"]}
    if "choice" in form:
        texts = [{"type": "const_string", "value": text} for text in form["choice"]]
        return {"type": "or", "elements": texts}
    return {"type": "json_schema", "json_schema": form.get("json_schema", {"type": "object"})}
