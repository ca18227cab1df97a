"""The log's lines about the steps of a card's engines: which sleeps or wakes, why, and how long."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from cluster.logs.line import Line
from cluster.residency.messages import MemberAction, Verb
from cluster.residency.state import State
from cluster.residency.steps import AFTER, DURING
from cluster.waiting import FIRST_S, LONGEST_S

SLOW_FACTOR = 3.0
"""A step is said to be slow once it has taken this many times as long as it takes as a rule, and
FIRST_S seconds at least."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Step:
    """A step that an engine has been ordered to take."""

    action: MemberAction
    began: float
    timer: asyncio.TimerHandle | None = None


class StepLines:
    """Notes the orders of a keeper and their ends, and logs.

    Args:
        waiting: tells how many calls wait for a member now.
        expected_s: tells how many seconds a step of a member takes as a rule.
        longest_s: tells after how many seconds a step counts as failed.
    """

    def __init__(
        self,
        waiting: Callable[[str], int],
        expected_s: Callable[[str, Verb], float],
        longest_s: Callable[[Verb], float],
    ) -> None:
        self._waiting = waiting
        self._expected_s = expected_s
        self._longest_s = longest_s
        self._steps: dict[str, _Step] = {}

    def ordered(self, action: MemberAction) -> None:
        """A member has been given an order."""
        self._forget(action.member)
        if action.verb in DURING:
            step = _Step(action, asyncio.get_running_loop().time())
            self._steps[action.member] = step
            expected_s = self._expected_s(action.member, action.verb)
            self._look_after(step, max(FIRST_S, SLOW_FACTOR * expected_s))
        elif action.verb in (Verb.RESTART, Verb.KILL):
            fields = {"member": action.member, "waiting": self._waiting(action.member)}
            logger.warning(Line(str(action.verb), fields | {"why": action.reason}))
        else:
            logger.debug(Line(str(action.verb), {"member": action.member, "why": action.reason}))

    def entered(self, member: str, state: State, took_s: float | None) -> None:
        """A member's engine has entered a state. If its step has ended so, that is logged.

        Args:
            took_s: seconds that the step took, as the member measured them.
        """
        step = self._steps.get(member)
        if step is None or state is not AFTER[step.action.verb]:
            return
        self._forget(member)
        began = step.began
        seconds = asyncio.get_running_loop().time() - began if took_s is None else took_s
        fields = {"step": str(step.action.verb), "member": member, "seconds": seconds}
        fields |= {"waiting": self._waiting(member), "why": step.action.reason}
        logger.info(Line("swap", fields))

    def gone(self, member: str) -> None:
        """The process of a member has ended or died. That is no trouble if nobody waited for it."""
        self._forget(member)
        waiting = self._waiting(member)
        level = logging.WARNING if waiting else logging.INFO
        logger.log(level, Line("gone", {"member": member, "waiting": waiting}))

    def _forget(self, member: str) -> None:
        step = self._steps.pop(member, None)
        if step is not None and step.timer is not None:
            step.timer.cancel()

    def _look_after(self, step: _Step, wait_s: float) -> None:
        step.timer = asyncio.get_running_loop().call_later(wait_s, self._say_slow, step)

    def _say_slow(self, step: _Step) -> None:
        action, since_s = step.action, asyncio.get_running_loop().time() - step.began
        fields = {
            "step": str(action.verb),
            "member": action.member,
            "since_s": since_s,
            "usual_s": self._expected_s(action.member, action.verb),
            "fails_after_s": self._longest_s(action.verb),
            "waiting": self._waiting(action.member),
            "why": action.reason,
        }
        logger.warning(Line("slow", fields))
        self._look_after(step, min(since_s, LONGEST_S))
