"""What tables of certificates say: metrics, paired comparison, plots, report."""
