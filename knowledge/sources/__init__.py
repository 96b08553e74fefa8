"""kvlp.knowledge.sources"""
