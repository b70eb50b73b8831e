"""What the core leaves out: sound above 8 kHz, and the stereo image. Parameters from samples, and back."""
