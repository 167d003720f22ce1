"""Methods that match maps over the image: class activation maps, attention."""
