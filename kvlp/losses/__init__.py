"""kvlp.losses"""
