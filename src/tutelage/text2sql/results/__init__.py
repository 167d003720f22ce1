"""Scores, comparisons and the report of a run."""
