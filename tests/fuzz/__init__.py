"""Fuzzing: whatever a file, a label or a key=value word holds, it is read or refused in words.

`mutations` changes valid inputs, `bounds` watches time and memory, `inputs` and its neighbours say what is fuzzed and
how it is read, `test_fuzz` runs a few cases of each in the suite, and the command runs for as long as it is given:

    python -m tests.fuzz --minutes 60
"""
