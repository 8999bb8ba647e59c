"""Look inside: what each block would draw, where heads look, and what features a stream is made of."""
