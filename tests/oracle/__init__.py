"""Slow, obvious twins of the compiled modules; tests hold the two equal. Never shipped, never a fallback."""
