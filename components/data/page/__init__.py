"""The prepared data as one page: what is broken, classes, samples, noise."""
