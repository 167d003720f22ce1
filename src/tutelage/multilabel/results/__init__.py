"""Reports, comparisons, localisation and export of a run."""
