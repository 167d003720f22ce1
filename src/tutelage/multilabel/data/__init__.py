"""Data sets of images with many labels."""
