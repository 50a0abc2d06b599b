"""Labels by voice: a key is held, a word is said, and recognised on this machine by a grammar of a dozen words."""
