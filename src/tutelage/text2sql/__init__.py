"""Question in, SQL out: exploring databases, fine-tuning on what was found, scoring the answers."""
