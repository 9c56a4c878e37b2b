"""Graphs: walks over them, records of what building one creates, gates, slot variables and replicas."""
