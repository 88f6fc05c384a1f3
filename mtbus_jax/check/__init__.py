"""Looking through a folder of your own pictures before anything is trained on it."""
