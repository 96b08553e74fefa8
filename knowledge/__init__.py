"""kvlp.knowledge"""
