"""``neon compare``: one network, trained with one optimizer after another. `neon.compare` has the names for users."""
