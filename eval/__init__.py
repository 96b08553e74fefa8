"""kvlp.eval"""
