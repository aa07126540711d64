"""What generated images and adapters give away of training images."""
