"""Calls: what rules may have torch make of whole matrices, between passes over elements."""
