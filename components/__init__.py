"""The parts: plain functions on tensors, arrays and frames. They know no DVC, no Prefect and no fixed path."""
