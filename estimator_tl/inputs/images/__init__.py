"""From the bytes of an image file to upright pixels, in the graph."""
