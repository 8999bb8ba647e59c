"""Labels of samples: shipped, judged, and painted by hand on a page."""
