"""The embedded default: a tiny FLUX that draws hands, the renderer it learnt from, and its training recipe."""
