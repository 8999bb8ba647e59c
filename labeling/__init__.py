"""Labels of samples: shipped, judged, and (later) painted by hand."""
