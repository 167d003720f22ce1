"""What is known about a database beyond its structure: one store that synthesizers and training prompts read."""
