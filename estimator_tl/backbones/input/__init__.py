"""What a backbone takes: the size, range and type of images, or text; and what its graph does to them first."""
