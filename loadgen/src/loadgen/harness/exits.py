"""What the help of each command says of its exit codes: those that it can end with, and no others."""

from __future__ import annotations

_REFUSED = "wrong usage, or input that cannot be used"
_FAILED = "the system or the model failed"
_KEPT = "what was measured is kept, marked INVALID"
_LOST = "nothing of it is kept"


def _codes(done: str, *, missed: str = "", refused: str = _REFUSED, failed: str = "", kept: str = "") -> str:
    """What 0, 1, 2, 3 and 130 mean; a code without a meaning is left out. kept: of what an interruption ends."""
    meanings = {0: done, 1: missed, 2: refused, 3: failed, 130: f"interrupted; {kept}" if kept else ""}
    lines = (f"  {code:<3}  {meaning}" for code, meaning in meanings.items() if meaning)
    return "\n".join(["\b", "Exit codes:", *lines])


EXITS = {
    "run": _codes(
        "done; every test VALID and every accuracy target met",
        missed="a test INVALID or an accuracy target missed",
        failed=_FAILED,
        kept=_KEPT,
    ),
    "comply": _codes(
        "done; every compliance test passed, every test VALID and every accuracy target met",
        missed="a compliance test failed, a test INVALID or an accuracy target missed",
        failed=_FAILED,
        kept=_KEPT,
    ),
    "accuracy": _codes(
        "scored; the target is met, or the log is of a part and not judged", missed="the accuracy target is missed"
    ),
    "info": _codes("said", refused="wrong usage, or a run that is not possible"),
    "doctor": _codes(
        "a run is possible; warnings make it slower, or its numbers less even",
        refused="wrong usage, or a problem that makes a run impossible",
    ),
    "fetch": _codes(
        "every file is there and right",
        refused="wrong usage, or a file that is missing, wrong or cannot be got",
        kept="what came is kept, and the next fetch goes on from there",
    ),
    "synthesize": _codes("every file is there", kept="the files that are whole stay"),
    "train-mini": _codes("trained", failed="the training failed", kept=_LOST),
    "speed": _codes("measured; no verdict is given", failed=_FAILED, kept="a sweep's --html has what was measured"),
    "report": _codes("written"),
    "compare": _codes("compared", missed="with --fail-above: B is worse by more, or a test is VALID in A only"),
    "submission": _codes("done", missed="of check and summary: something does not pass"),
    "submission build": _codes("built; check says whether it passes"),
    "submission check": _codes("it passes", missed="it does not pass"),
    "submission summary": _codes(
        "written; every result passes", missed="written, without the results that are refused"
    ),
    "submission system": _codes("said"),
    "submission truncate": _codes("shortened, or short before"),
    "submission energy": _codes("said"),
    "submission rules": _codes("said"),
}
