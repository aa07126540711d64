"""The presets, one file a study: `training.preset.PRESETS` finds them here."""
