"""kvlp.datasets.phantom"""
