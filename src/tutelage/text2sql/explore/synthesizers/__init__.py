"""From a walk to question-SQL candidates."""
