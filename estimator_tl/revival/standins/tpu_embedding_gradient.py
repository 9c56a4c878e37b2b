"""Stand-in for `tensorflow.python.tpu.tpu_embedding_gradient`, which TensorFlow removed in 2.16.

The module is empty: its functions are called only with a TPU embedding, which the
stand-in `tpu_embedding` does not support.
"""
