"""What becomes of a sample: when it is decided, and whether an intervention mends it."""
