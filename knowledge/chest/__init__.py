"""kvlp.knowledge.chest"""
