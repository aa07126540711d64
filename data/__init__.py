"""From files on disk to records: images with captions, labels, patients, masks and boxes."""
