"""The score where people draw, keep and look at pictures: diffusers, ComfyUI, datasets, FiftyOne."""
