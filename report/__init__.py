"""What a run came to: its tables read back, in words, in figures and on one page."""
