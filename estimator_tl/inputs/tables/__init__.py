"""Tables of text with labels."""
