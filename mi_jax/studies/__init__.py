"""Studies of a trained network: each is a function from a network, its variables and data to records."""
