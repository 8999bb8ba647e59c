"""Labels as files that other tools read and write."""
