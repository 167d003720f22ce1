"""The spine: it composes, builds, runs and keeps, and knows no task."""
