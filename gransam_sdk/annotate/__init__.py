"""Folders of photos in, records and exports out."""
