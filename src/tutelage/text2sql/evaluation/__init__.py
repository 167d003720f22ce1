"""The six scores of text-to-SQL."""
