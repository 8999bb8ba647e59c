"""From numbers to verdicts with reasons, and how far they can be trusted."""
