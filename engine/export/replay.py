"""Answers of an exported model, in a process that has nothing of Loupe: ``python -I replay.py MODEL INPUTS ANSWERS``.

INPUTS is an .npz of arrays, each a batch for the model; ANSWERS gets the probabilities under the same names.
"""

import sys

import numpy as np

BATCH = 16  # a hundred images at once take a large network gigabytes


def open_model(path: str):
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    import torch

    model = torch.export.load(path).module()
    return lambda batch: model(torch.from_numpy(batch)).detach().numpy()


def in_parts(answer, batch):
    return np.concatenate([answer(batch[start : start + BATCH]) for start in range(0, len(batch), BATCH)])


if __name__ == "__main__":
    model, inputs, answers = sys.argv[1:]
    answer = open_model(model)
    with np.load(inputs) as batches:
        np.savez(answers, **{name: in_parts(answer, batches[name]) for name in batches})
    if "engine" in sys.modules:
        sys.exit("the proof had Loupe's own code at hand")
