"""Judges: they compare pairs of answers or grade single answers, and the store keeps their verdicts."""
