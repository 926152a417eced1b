"""Torch modules to verified ONNX graphs and bundles (installs as ``gransam_sdk.export``)."""
