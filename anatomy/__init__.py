"""HandAnat: where the hands of a picture are, whether they are plausible, and how far that verdict can be trusted."""
