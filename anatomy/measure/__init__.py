"""From landmarks and pixels to numbers: angles, lengths, counts, outlines."""
