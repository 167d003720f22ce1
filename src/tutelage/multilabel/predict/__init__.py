"""A trained classifier looks at a folder of pictures: what ``predict.py`` does. Imports torch only where a run asks."""
