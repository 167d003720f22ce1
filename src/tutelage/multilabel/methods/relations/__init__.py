"""Methods that match relations between the samples of a batch, or between labels or tokens."""
