"""The smoothed classifier as others ask it: one object with all checks, and a service around it."""
