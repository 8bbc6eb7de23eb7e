"""Runs the published experiments within a time budget, adopts the results, and compares them with the published
ones."""
