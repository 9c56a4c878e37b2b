"""Folders of images with one subfolder for each class."""
