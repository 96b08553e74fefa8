"""kvlp.training"""
