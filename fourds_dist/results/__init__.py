"""What a run leaves in people's hands: its report, and its student to measure, to try and to ship.

run             a run's folder, read back: configuration, events, table
student, loading   a student from wherever it lies: run, checkpoint, safetensors, torch.export, ONNX
preprocessing   how an image becomes the student's input
images          pictures to look at: dataset folders, image folders, files
scores          accuracy, calibration and their uncertainty, from probabilities
measure         a student on labelled images: its scores
examine         a run's networks side by side on its test images, and inside its adapters
charts, page, report   the report: pictures, and the page that holds them
export          the student in other formats, each compared with the original
"""
