"""kvlp.knowledge.linking"""
