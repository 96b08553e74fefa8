"""kvlp.eval.page"""
