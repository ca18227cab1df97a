"""Turns verdicts into figures: win rates, length-controlled win rates, mean grades."""
