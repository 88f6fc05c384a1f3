"""Metrics of segmentation and classification, on host arrays."""
