"""Evaluation of tables of certificates: metrics, paired comparison, plots, report, verdict, audit."""
