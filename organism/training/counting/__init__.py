"""How the finger counter came about: its hands, training and measurement. Nothing that counts fingers imports this."""
