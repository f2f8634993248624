"""What old or half installed packages of the peers need to be imported; install.sh runs it in each environment.

- torchvision without the CUDA runtime: its compiled operators are not loaded, and describing two of them fails. They
  are declared, and never called.
- PyLaia's pytorch-lightning 1.4.2 on Python 3.11, which formats members of ``class E(str, Enum)`` by their name.
- PyLaia imports a decoder of torchaudio for reading with a language model; a name that raises stands in for it.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_paths()["purelib"])
MARK = "# Patched by htr-ray's benchmark of peers.\n"
OPERATORS = """
if not _has_ops():
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
FORMAT = """
def _format(self: LightningEnum, how: str) -> str:
    return format(self.value, how)


LightningEnum.__format__ = _format
"""
DECODER = """
def ctc_decoder(*args: object, **kwargs: object) -> None:
    raise NotImplementedError("this environment has no torchaudio, and reads without a language model")
"""


def append(path: Path, text: str) -> None:
    """Append once; nothing where the package is not installed."""
    if path.exists() and MARK not in path.read_text(encoding="utf-8"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n\n" + MARK + text.lstrip("\n"))


def main() -> None:
    append(SITE / "torchvision" / "extension.py", OPERATORS)
    append(SITE / "pytorch_lightning" / "utilities" / "enums.py", FORMAT)
    if (SITE / "laia").exists() and not (SITE / "torchaudio").exists():
        for package in ("torchaudio", "torchaudio/models"):
            (SITE / package).mkdir()
            (SITE / package / "__init__.py").touch()
        stand_in = SITE / "torchaudio" / "models" / "decoder.py"
        stand_in.write_text(MARK + DECODER.lstrip("\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
