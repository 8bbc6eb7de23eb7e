"""Certification by randomized smoothing: noise, sampling, bounds, the reference procedure and its table."""
