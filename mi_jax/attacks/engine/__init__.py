"""What all attacks share: batches of restarts and targets, chunks, randomness, input checks, saved evaluations."""
