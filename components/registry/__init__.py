"""MLflow: the tracking of runs, the registered models, and the classifier that they hold."""
