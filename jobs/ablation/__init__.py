"""Ablations: they compare variants of a mixture on the same rows and show what each part adds."""
