"""The networks, their training objective (the CTC loss), decoding, and the recogniser that is made of them."""
