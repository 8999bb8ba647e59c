"""How the organism and the finger counter were trained."""
