"""A second subject, beside the one that handscope brings."""

from pathlib import Path

BIRD = Path(__file__).with_name("data") / "bird.yaml"
