"""The networks, their training objective (the CTC loss), decoding, and the recogniser built from them."""
