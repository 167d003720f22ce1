"""Questions with SQL: where they come from and how a model reads them."""
