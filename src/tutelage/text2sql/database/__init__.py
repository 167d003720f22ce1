"""Databases: what is in them, and a sandbox to ask them."""
