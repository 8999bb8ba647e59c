"""What becomes of a hand: when it is decided, and whether an intervention mends it."""
