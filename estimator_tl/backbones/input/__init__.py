"""What a backbone takes: images of a size, range and type, or text; and what its graph does to images first."""
