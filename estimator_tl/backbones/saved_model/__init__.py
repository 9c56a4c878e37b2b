"""TF2 SavedModels as backbones: described from their files, called in the graph."""
