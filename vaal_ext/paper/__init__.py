"""The paper's experiments, and those beside them, each from one command: `vaal-ext reproduce`."""
