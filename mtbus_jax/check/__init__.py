"""Looking through a folder of one's own pictures before anything is trained on it."""
