"""Trains over a grid of cue strengths, amplitude over the attacker's reach, and shows how shape bias moves."""
