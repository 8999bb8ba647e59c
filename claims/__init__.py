"""What the sources claim about hands, each asked anew: a small measurement, a figure, and what it cannot say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """Something that is said of hands in generated pictures, and how far it can be asked here.

    Attributes
    ----------
    says : str, the claim
    by : str, who says it
    asks : str, what is measured
    cannot : str, what that does not show
    """

    says: str
    by: str
    asks: str
    cannot: str


SURVEY = "Atlas survey, Why AI hands broke and what fixed them"
BLOG = "a blog post on why image generation fails at hands and feet"
STUDY = "clawRxiv 2604.01321"
COURSE = "M. Hayes, Improving Human Hands in Stable Diffusion (CS236)"

CLAIMS = {
    "table": Claim(
        "diffusion models draw implausible hands at 4.1 times the rate of GANs; guidance mends 52.2% of them",
        STUDY,
        "what the published table itself implies, with intervals, and where its numbers do not agree",
        "whether the counts behind the table are right",
    ),
    "loss": Claim(
        "a pixel loss hardly notices a sixth finger: a slight shift of colour costs more",
        BLOG,
        "mean squared error of a planted sixth finger against shifts of the background's colour, on renders, and how "
        "the anatomy loss ranks the same pairs",
        "what a diffusion model, whose loss is on noise and not on finished pictures, learns of it",
    ),
    "codec": Claim(
        "the autoencoder loses what was drawn of a small hand",
        SURVEY,
        "count and verdict before and after encoding and decoding, against the hand's size in pixels and latents",
        "what a model draws in the latents: only that the way back does or does not keep it",
    ),
    "counting": Claim(
        "text encoders do not represent number",
        SURVEY,
        "held out by template and noun, whether a linear probe reads the number from a prompt's embedding, beside a "
        "control task, and whether it reaches numbers that it has not seen",
        "whether the image model uses it",
    ),
    "size": Claim(
        "small and hidden hands go wrong more often",
        f"{SURVEY}; {BLOG}",
        "rate of implausible hands by size in pixels and by what the landmarks say is hidden, in scored pictures",
        "cause: small hands are also harder to find and to score",
    ),
    "steps": Claim(
        "more sampling steps make counting worse",
        SURVEY,
        "rate of wrong hands of one model at several numbers of steps, the same prompts and noises",
        "other models and other samplers",
    ),
    "passes": Claim(
        "generators of a single pass draw better hands than iterative ones",
        STUDY,
        "rates of sets of scored pictures beside the first set, by draws of prompts",
        "cause: sets differ in training data, prompts and resolution too",
    ),
    "imbalance": Claim(
        "what is rare in training is drawn wrong",
        f"{SURVEY}; {BLOG}",
        "two trainings of the organism on as many renders, of which one has few of one gesture",
        "how rare hands are in the training of other models",
    ),
}
