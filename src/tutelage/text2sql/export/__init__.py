"""A trained model taken away: a Hugging Face folder with its card, GGUF, and a Modelfile for Ollama."""
