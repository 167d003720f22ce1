"""Networks, their heads and their class activation maps."""
