"""Methods that match maps over space: class activation maps and attention."""
