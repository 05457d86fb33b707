"""DEPLOY: a trained student, ready to be asked; imports no training code."""
