"""Learning: the training loop and what surrounds a step."""
