"""Mitigations made here: weights trained on a folder of pictures, and regions painted anew by their depth."""
