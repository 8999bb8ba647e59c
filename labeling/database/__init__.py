"""What was said of samples: annotations in an SQLite file to which one only appends."""
