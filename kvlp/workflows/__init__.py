"""kvlp.workflows"""
