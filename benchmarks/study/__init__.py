"""Does gaze help? Trained and tested on phantoms with a shortcut; ``make study``."""
