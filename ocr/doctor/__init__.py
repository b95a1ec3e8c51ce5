"""What keeps a CTC loss from falling: checks of data and model, reference levels of the loss, a watch over the training."""
