"""The run folder: samples, trajectories, prompts and seeds, and which results are fresh."""
