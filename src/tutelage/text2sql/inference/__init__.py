"""A fine-tuned model answers: generation and selection."""
