"""How figures look, what their captions share, and how they are registered and saved."""
