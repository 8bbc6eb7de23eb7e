"""The published experiments: run them within a time budget, take the results over, show them beside the published."""
