"""Which proposals refuse to answer, told by how they begin. Pure.

A refusal may be the right answer, so no refusal is ever left out of a prompt, and an aggregator that is
sure may pick it. It only yields where nobody judges: where a proposal is taken because its place in the
recipe is trusted. Even there it counts if half of the proposals or more refuse, as honest models do if
the request is harmful.
"""

import re
from collections.abc import Sequence

from serve_app.mixture.events import ProposalDone

LONGEST = 400
"""Most characters of a text that counts as a refusal. Longer ones say something else as well."""
BEGINNING = 120
"""The characters in which a refusal says so."""
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
"""What refusals say in the languages that most models write."""


def is_refusal(text: str) -> bool:
    """Whether a text is a short one that begins with a refusal."""
    text = text.strip()
    return len(text) <= LONGEST and REFUSED.search(text[:BEGINNING]) is not None


def answering(proposals: Sequence[ProposalDone]) -> Sequence[ProposalDone]:
    """The proposals without those that refuse; all of them if half or more refuse."""
    found = [proposal for proposal in proposals if not is_refusal(proposal.text)]
    return found if 2 * len(found) > len(proposals) else proposals
