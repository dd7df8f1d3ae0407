"""Prediction from exported models, with numpy and ONNX Runtime only."""
