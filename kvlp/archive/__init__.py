"""kvlp.archive"""
