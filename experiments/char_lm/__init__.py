"""Model the characters of a text with any core: held-out bits per character, and a sample.

Others may use ``training.Training``, everything that one configuration stands for, and ``model.SequenceModel``.
"""
