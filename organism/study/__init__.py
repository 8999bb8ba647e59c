"""The study of the organism: its shipped labels, its judge, and what was tried to mend its hands."""
