"""ONNX files that provably agree with the model they came from."""
