"""Training: the loop, the attack it needs, and one file per method."""
