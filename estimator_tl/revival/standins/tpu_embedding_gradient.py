"""Stands in for `tensorflow.python.tpu.tpu_embedding_gradient`, gone from TensorFlow 2.16 on.

Its functions are reached only with a TPU embedding, which cannot be made there
(see `tpu_embedding`), so the module is empty.
"""
