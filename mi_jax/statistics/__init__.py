"""Intervals and tests over seeds and images."""
