"""segkit: semantic segmentation in which the decoder's upsampling operator is the experiment."""

__version__ = "0.1.0"
