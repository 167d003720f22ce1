"""Distillation methods, one file each, in a folder for what they match."""
