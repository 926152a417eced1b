"""Embedded bundles, as package data."""
