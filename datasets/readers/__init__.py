"""kvlp.datasets.readers"""
