"""Studies of many methods: what is run, in which order, and what may be said of it."""
