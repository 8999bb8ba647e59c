"""Activations on disk: shards, the consolidated store, and their checks."""
