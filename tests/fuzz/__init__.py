"""Fuzzing: whatever a file, a label or a key=value word holds, it is read or refused in words.

`mutations` changes valid inputs, `bounds` limits time and memory, `inputs` and its neighbours define the fuzzed inputs
and their readers, `test_fuzz` runs a few cases of each in the suite, and the command runs for as long as it is given:

    python -m tests.fuzz --minutes 60
"""
