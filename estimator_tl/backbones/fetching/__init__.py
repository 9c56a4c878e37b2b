"""From the handle of a module to a local folder: archives, downloads, the cache."""
