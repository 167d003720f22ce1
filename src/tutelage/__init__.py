"""Tutelage: small models that learn under big teachers, and from your own databases."""
