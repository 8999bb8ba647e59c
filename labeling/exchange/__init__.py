"""Labels, and pictures with their labels, as files that other tools read and write."""
