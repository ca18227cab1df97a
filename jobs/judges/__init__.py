"""Judges: pairs, grades, their prompts, and the way of verdicts into the store."""
