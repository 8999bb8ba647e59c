"""What a page can suggest: masks, a probe's map, and which samples to label next."""
