"""The runtime: bundles in, labelled masks out, without torch."""
