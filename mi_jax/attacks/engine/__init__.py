"""What every attack shares: batched restarts and targets, chunks, randomness, input checks, saved evaluations."""
