"""From a picture to hands: detection, landmarks, and which pixels are hand."""
