"""Captioned picture sets: built, split, stored, opened, and the cache of what is computed from them."""
