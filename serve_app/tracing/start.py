"""Begins to send traces, in a process where the packages for them may be missing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serve_app.tracing.settings import require_installed

if TYPE_CHECKING:
    from serve_app.tracing.provider import Tracing


def start_tracing(variables: Mapping[str, str]) -> "Tracing":
    """Begin to send traces.

    Args:
        variables: what `tracing_variables` gives. They become a part of this process's environment.

    Raises:
        TracingError: the extra `tracing` is not installed here, or the variables cannot be used.
    """
    require_installed("the process that has deployed this ingress")
    from serve_app.tracing.provider import Tracing

    return Tracing(variables)
