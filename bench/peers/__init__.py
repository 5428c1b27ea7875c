"""Libraries that multiply with quantized weights, each behind the same few lines: see contender.py."""
