"""Measurements: `python -m bench micro|journey|soak|all`. Every answer is checked before its time counts."""
