"""The HTTP service around the smoothed classifier."""
