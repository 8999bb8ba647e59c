"""Diffusion transformers: found, loaded, placed, and called as their pipelines call them."""
