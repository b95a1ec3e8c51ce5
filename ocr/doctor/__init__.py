"""What keeps a CTC loss from falling: checks of the data and of the model, reference levels of the loss, the watch during a
training. Each fault it can find has a code in `findings`.
"""
