"""The fine-tuning methods, one file each: `training.method.METHODS` finds them here."""
