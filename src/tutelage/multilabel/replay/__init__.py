"""Recording what a teacher shows of each view of the training pictures, and replaying it to later students."""
