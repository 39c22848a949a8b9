"""Networks that listen: wav2vec 2.0 and Whisper."""
