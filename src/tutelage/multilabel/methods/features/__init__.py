"""Methods that match features, through projections where channels differ."""
