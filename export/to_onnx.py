"""Exports a Composer for ONNX Runtime.

python export/to_onnx.py --model=composer.keras --output=composer.onnx
"""

import program


def main(argv: list[str]) -> None:
    """Runs the program."""
    program.run(argv, "onnx")


if __name__ == "__main__":
    program.start(main)
