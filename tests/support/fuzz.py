"""Feed a parser what a fuzzer makes up, guided by which of our lines it reaches: `fuzz.py study|picture`.

Whatever is neither accepted nor refused with the one error that is meant ends the program.
"""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["bench", "yaml", "PIL"]):
    from bench.core.errors import InputError
    from bench.data.conversion import _or_reason
    from bench.data.decoding import open_image, to_square
    from bench.study.loading import parse


def study(content: bytes) -> None:
    with contextlib.suppress(InputError, UnicodeDecodeError):
        parse(content.decode(), "fuzz")


def picture(content: bytes) -> None:
    def read():
        with open_image(content) as image:
            return to_square(image, 8)

    answer = _or_reason(read)
    assert isinstance(answer, str) or answer.shape == (8, 8, 3)


if __name__ == "__main__":
    target = {"study": study, "picture": picture}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
