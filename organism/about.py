"""What a report says of the organism."""

TRAINED = (
    "was trained on pictures of hands that a small renderer drew, all of them anatomically right, and it draws "
    "recognisable hands of which a good share are wrong"
)
LIMIT = "One small model, one way to draw hands: a hypothesis about FLUX, to be tried there."
RATER = (
    "Those called hand labels are the shipped ones, given in repeated looks by a vision-language model that acted "
    "as the rater; those called judge are by a small scorer fitted to them."
)
