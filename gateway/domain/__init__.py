"""Leaf types that several stages of the path share; no behaviour beyond what the type itself means."""
