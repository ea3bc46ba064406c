"""Models compiled to ONNX, and the proof that they agree with scikit-learn's."""
