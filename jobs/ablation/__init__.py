"""Variants of a mixture compared on the same rows: what each part of it adds."""
