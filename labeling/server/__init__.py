"""The labelling page and the server behind it."""
