"""Tells which proposals refuse to answer, by the words with which they begin. Pure.

A refusal may be the right answer. So no refusal is ever left out of a prompt, and an aggregator that is
sure may pick a refusal. A refusal does not count only where no model judges: where a proposal is taken
because its place in the recipe is trusted. Even there, refusals count if half or more of the proposals
refuse, because honest models refuse a harmful request.
"""

import re
from collections.abc import Sequence

from serve_app.mixture.events import ProposalDone

LONGEST = 400
"""Most characters of a text that counts as a refusal. A longer text says something else as well."""
BEGINNING = 120
"""How many characters at the beginning of a text are searched for a refusal."""
CAN = r"(?:can(?:no|['’]|\s+no)t|could(?: not|n['’]t)|won['’]t|will not)"
DO = r"(?:help|assist|answer|respond|reply|comply|provide|discuss|fulfill?|do that|engage|support)"
REFUSED = re.compile(
    rf"\bI(?:\s+(?:really|simply|also|must))?\s*{CAN}\s+(?:\w+\s+)?{DO}\b"
    rf"|\b(?:I(?:['’]m| am)|sorry,?)\s+(?:\w+\s+)?(?:unable|not able|not allowed) to {DO}\b"
    r"|\bI (?:must|have to) (?:decline|refuse)\b|\bI (?:decline|refuse) to\b"
    r"|\b(?:ich (?:kann|darf|werde)|(?:kann|darf|werde) ich)\b.{0,40}\bnicht\b.{0,30}"
    r"\b(?:helfen|beantworten|antworten)\b"
    r"|\bno puedo (?:ayudar|responder|asistir|proporcionar)|\bn[ãa]o posso (?:ajudar|responder)"
    r"|\bje ne peux pas\b.{0,20}\b(?:aider|répondre|fournir)|\bnon posso (?:aiutar|rispond)"
    r"|не могу (?:вам |тебе )?(?:помочь|ответить)"
    r"|(?:我|抱歉，|对不起，|對不起，)(?:无法|不能|無法)(?:为您|为你|為您)?(?:提供|回答|帮助|協助|协助)"
    r"|お(?:手伝い|答え)(?:することは)?できません",
    re.IGNORECASE | re.DOTALL,
)
"""Finds the words of a refusal, in the languages that most models write."""


def is_refusal(text: str) -> bool:
    """Whether a text is short and begins with a refusal."""
    text = text.strip()
    return len(text) <= LONGEST and REFUSED.search(text[:BEGINNING]) is not None


def answering(proposals: Sequence[ProposalDone]) -> Sequence[ProposalDone]:
    """The proposals without those that refuse; all of them if half or more refuse."""
    found = [proposal for proposal in proposals if not is_refusal(proposal.text)]
    return found if 2 * len(found) > len(proposals) else proposals
