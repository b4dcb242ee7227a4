"""Families of published models: how to recognise each, and the parts that it is made of."""
