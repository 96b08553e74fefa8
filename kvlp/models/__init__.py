"""kvlp.models"""
