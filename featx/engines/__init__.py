"""Engines, which run the graph of a backbone: compiled Keras, OpenVINO or ONNX Runtime."""
