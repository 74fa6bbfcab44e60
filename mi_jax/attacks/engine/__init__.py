"""Shared by all attacks: batches of restarts and targets, randomness, input checks, saved evaluations."""
