"""Multi-task segmentation and classification of breast-ultrasound images in JAX/Flax.

Importing this package imports neither JAX nor TensorFlow; each module imports what it uses.
"""

__version__ = "0.1.0"
