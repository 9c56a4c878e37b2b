"""Graphs: walks over them, what building one makes, slot variables and replicas."""
