"""Figures of verdicts: win rates, length-controlled win rates, mean grades."""
