"""Tocsin: sends an appeal to the people who asked to hear it."""
