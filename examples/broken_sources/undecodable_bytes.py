"""Says nothing of its encoding, which means UTF-8, and is Latin-1."""

ENGLISH = "coffee"
FRENCH = "café"
