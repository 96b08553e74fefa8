"""kvlp.datasets"""
