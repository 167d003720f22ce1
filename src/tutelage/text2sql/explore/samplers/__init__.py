"""Walks on the database graph."""
