"""The language model: its weights, adapters, attention and loss."""
