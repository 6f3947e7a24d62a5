"""Annexes: one foreign library each, imported by who uses it; nothing else needs them."""
