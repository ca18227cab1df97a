"""The tools of a request: OpenAI's `tools`, its older `functions`, and forms of other servers.

1. `tools` and `functions` list functions. What is no function, such as a web search of OpenAI's, is
   left out, and `moa.ignored` names it.
2. `tool_choice`, the older `function_call` and Mistral's `any` say whether a tool is called: `none`,
   `auto`, `required`, or the name of a function, which is then the only one.
3. `parallel_tool_calls` says whether one answer may have several calls.
"""

import re
from typing import Any

from configs.base import MEANINGS
from configs.errors import BadRequest
from configs.tool_use import LONGEST_DESCRIPTION, MOST_TOOLS, NAME
from serve_app.http.aliases import Translated
from serve_app.http.parameters import TOOL_LISTS, TOOL_SWITCHES, unknown

OTHER = {"tool_choice": "function_call", "function_call": "tool_choice"}
"""Names that some clients send with the wrong list."""
REQUIRED = ("required", "any")
"""Words for a call that has to be."""
SCHEMAS = ("parameters", "input_schema", "inputSchema")
"""Names that servers give the schema of a function's arguments."""


def read_tools(fields: Translated) -> None:
    """Turn the parameters about tools into our `tool_use`, if a tool may be called. The lists of tools
    stay where none may be called.

    Raises:
        BadRequest: a parameter has a form that nobody here knows; the message names the parameter.
    """
    if "tool_use" in fields:  # only our own name of what this function makes
        raise unknown("tool_use", frozenset({*TOOL_LISTS, *TOOL_SWITCHES}))
    older = "functions" in fields and not fields.get("tools")
    listed, chooser = ("functions", "function_call") if older else ("tools", "tool_choice")
    chooser = chooser if chooser in fields else OTHER[chooser]
    given = fields.get(listed)
    if listed in fields and not isinstance(given, list):
        raise BadRequest(f"{listed!r} has to be an array", param=listed)
    choice, names = _choice(fields.get(chooser, "auto"), chooser)
    parallel = fields.get("parallel_tool_calls", True)
    if not isinstance(parallel, bool):
        raise BadRequest("'parallel_tool_calls' has to be true or false", param="parallel_tool_calls")
    if not given or choice == "none":
        _require_no_call(choice, chooser, listed)
        for name in TOOL_SWITCHES:
            fields.pop(name, None)
        return
    tools = _functions(given, listed, fields)
    for name in names if choice == "required" else ():
        if all(tool["name"] != name for tool in tools):
            message = f"{chooser}: there is no function {name!r:.80} in {listed!r}"
            raise BadRequest(message, param=chooser)
    tools = [tool for tool in tools if not names or tool["name"] in names]
    for name in (*TOOL_LISTS, *TOOL_SWITCHES):
        fields.pop(name, None)
    if not tools:
        _require_no_call(choice, chooser, f"functions in {listed!r}")
        return
    is_single = older or len(names) == 1 or not parallel
    fields.put("tool_use", {"tools": tools, "choice": choice, "parallel": not is_single}, listed)
    fields.older_calls = older


def _functions(given: list[Any], listed: str, fields: Translated) -> list[dict[str, Any]]:
    """The functions of a list of tools. What is no function is noted as left out.

    Raises:
        BadRequest: there are too many tools, or one has a wrong form.
    """
    if len(given) > MOST_TOOLS:
        message = f"{listed!r} may have {MOST_TOOLS} tools at most, and it has {len(given)}"
        raise BadRequest(message, param=listed)
    tools, others = [], set()
    for n, item in enumerate(given):
        if (tool := _tool(item, f"{listed}.{n}")) is None:
            others.add(f"{listed}.{item['type']!s:.60}")
        else:
            tools.append(tool)
    fields.left_out += sorted(others)
    return tools


def _require_no_call(choice: str, name: str, missing: str) -> None:
    if choice == "required":
        raise BadRequest(f"{name!r} asks for a call, and there are no {missing}", param=name)


def _choice(given: Any, name: str) -> tuple[str, tuple[str, ...]]:
    """Whether a tool is called, and the names of those that may be; without names all may be."""
    if isinstance(given, str) and given in ("none", "auto", *REQUIRED):
        return ("required" if given in REQUIRED else given), ()
    found = _object_choice(given) if isinstance(given, dict) else None
    if found is not None:
        return found
    allowed = '"none", "auto", "required" or an object that names a function'
    raise BadRequest(f"{name!r} has to be {allowed}, not {given!r:.80}", param=name)


def _object_choice(given: dict[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    kind = given.get("type")
    inner = given.get("allowed_tools", given)
    if kind == "allowed_tools" and isinstance(inner, dict):
        listed, mode = inner.get("tools"), inner.get("mode", "auto")
        named = [_name(each) for each in listed] if isinstance(listed, list) else []
        names = tuple(each for each in named if each is not None)
        return (mode, names) if mode in ("auto", "required") and names else None
    if kind in ("none", "auto", *REQUIRED):
        return ("required" if kind in REQUIRED else str(kind)), ()
    if kind in (None, "function", "tool") and (one := _name(given)) is not None:
        return "required", (one,)
    return None


def _name(given: Any) -> str | None:
    """The name of the function that an object names."""
    if not isinstance(given, dict):
        return None
    function = given.get("function", given)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _tool(item: Any, where: str) -> dict[str, Any] | None:
    """A function as `ToolUse` takes it; None for a tool that is no function.

    Raises:
        BadRequest: the function has no name, or its parameters are no object.
    """
    if not isinstance(item, dict):
        raise BadRequest(f"{where} has to be an object, not {item!r:.80}", param=where)
    kind = item.get("type")
    if kind not in (None, "function") and "input_schema" not in item:
        return None
    function = item.get("function", item)
    at = f"{where}.function" if "function" in item else where
    if not isinstance(function, dict):
        raise BadRequest(f"{at} has to be an object, not {function!r:.80}", param=at)
    name, description = function.get("name"), function.get("description", "")
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        message = f"{at}.name has to be {MEANINGS[NAME]}, not {name!r:.80}"
        raise BadRequest(message, param=f"{at}.name")
    if not isinstance(description, str) or len(description) > LONGEST_DESCRIPTION:
        message = f"{at}.description has to be a text of at most {LONGEST_DESCRIPTION:,} characters"
        raise BadRequest(message, param=f"{at}.description")
    schema: Any = next((function[each] for each in SCHEMAS if each in function), {})
    if not isinstance(schema, dict):
        message = f"{at}.parameters has to be a JSON schema, not {schema!r:.80}"
        raise BadRequest(message, param=f"{at}.parameters")
    strict = function.get("strict", item.get("strict"))
    tool = {"name": name, "description": description, "parameters": schema}
    return tool | ({"strict": strict} if isinstance(strict, bool) else {})
