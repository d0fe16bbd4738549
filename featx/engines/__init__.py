"""Who runs the graph of a backbone: compiled Keras, OpenVINO or ONNX Runtime."""
