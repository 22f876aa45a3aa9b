"""Decisions bar by bar: a policy with an account that is kept from bar to bar. See its README."""
