"""kvlp.recipes"""
