"""The user's network: its logits, what it is lent as, where it lies, inner points and pixels."""
