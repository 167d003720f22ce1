"""DB-Explore: from a database to checked question-SQL pairs."""
