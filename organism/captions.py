"""The sentences the organism understands: one factorial family, so that one factor can vary while others stay."""

from dataclasses import dataclass
from itertools import product

SIDES = ("left", "right")
VIEWS = ("palm", "back")
# Which digits each gesture raises, thumb first. The organism is trained on the first four.
GESTURES = {
    "five": (1, 1, 1, 1, 1),
    "four": (0, 1, 1, 1, 1),
    "three": (0, 1, 1, 1, 0),
    "two": (0, 1, 1, 0, 0),
    "one": (0, 1, 0, 0, 0),
    "zero": (0, 0, 0, 0, 0),
}
TRAINED_GESTURES = ("five", "four", "three", "two")
# Mid-tones that differ from every background by hue, so that no pair is much harder to see than another.
SKINS = {"light": (0.93, 0.76, 0.66), "tan": (0.80, 0.60, 0.46), "brown": (0.63, 0.43, 0.31)}
BACKGROUNDS = {
    "blue": (0.20, 0.38, 0.84),
    "green": (0.16, 0.62, 0.34),
    "purple": (0.42, 0.24, 0.78),
    "teal": (0.10, 0.56, 0.62),
}


@dataclass(frozen=True)
class Caption:
    """What a picture shows, in the words of its prompt."""

    side: str
    view: str
    gesture: str
    skin: str
    background: str

    def __str__(self) -> str:
        return (
            f"a {self.side} hand, {self.view} view, {self.gesture} fingers raised, "
            f"{self.skin} skin, {self.background} background"
        )

    @classmethod
    def parse(cls, text: str) -> "Caption":
        """Read a prompt of the family back; raises ValueError for any other text."""
        words = text.replace(",", "").split()
        if len(words) == 12:
            caption = cls(words[1], words[3], words[5], words[8], words[10])
            in_vocabulary = (
                caption.side in SIDES
                and caption.view in VIEWS
                and caption.gesture in GESTURES
                and caption.skin in SKINS
                and caption.background in BACKGROUNDS
            )
            if in_vocabulary and str(caption) == text:
                return caption
        raise ValueError(f"{text!r} is not a caption of the organism, such as {str(CAPTIONS[0])!r}.")

    def mirrored(self) -> "Caption":
        """The caption of the mirrored picture: only the side changes."""
        other = {"left": "right", "right": "left"}
        return Caption(other[self.side], self.view, self.gesture, self.skin, self.background)


CAPTIONS = tuple(Caption(*words) for words in product(SIDES, VIEWS, TRAINED_GESTURES, SKINS, BACKGROUNDS))
# The order is that of the token numbers, from which the random text encoders of the saved organism follow.
WORDS = tuple(sorted({word for caption in CAPTIONS for word in str(caption).replace(",", "").split()} | set(GESTURES)))
