"""Recipes: the fields of one, their defaults and checks, and those that sepnet ships."""
