"""GREEN: a language model lists the errors of a hypothesis; the score is counted from its answer.

The model (a causal language model of transformers) comes from a local folder, and with it, as `prompt.txt`, the prompt
that it was trained with: we ship neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from kvlp.errors import CheckpointError, DataError
from kvlp.eval.reports.metric import Column, mean_column
from kvlp.typing import PathLike

__all__ = ["Green", "GreenAnswer", "Respond", "read_answer"]

#: a prompt -> the model's answer
Respond: TypeAlias = Callable[[str], str]
_REFERENCE, _CANDIDATE = "{reference}", "{candidate}"
_SECTION = re.compile(r"\[(?P<title>[^\]\n]+)\]:?(?P<body>.*?)(?=\n\s*\[[^\]\n]+\]|\Z)", re.DOTALL)
_ERRORS, _MATCHED = "clinically significant errors", "matched findings"
_KIND = re.compile(r"^\s*\([a-f1-6]\)[^:\n]*:\s*(\d+)\b", re.MULTILINE)
_COUNT = re.compile(r"\s*(\d+)\b")


class GreenAnswer(NamedTuple):
    """What an answer counts: findings that match, and clinically significant errors."""

    matched: int
    errors: int

    @property
    def score(self) -> float:
        """matched / (matched + errors); 0 if nothing matches."""
        return self.matched / (self.matched + self.errors) if self.matched else 0.0


class Green:
    """GREEN score in [0, 1], the share of findings that match, and the number of significant errors; overall the means.

    An answer that cannot be read leaves its report undefined (NaN): it is in no mean, and `n` says how many are.

    Args:
        respond: prompt -> answer.
        prompt: with {reference} and {candidate} where the reports go.

    Raises:
        DataError: the prompt lacks one of them.
    """

    def __init__(self, respond: Respond, prompt: str) -> None:
        if _REFERENCE not in prompt or _CANDIDATE not in prompt:
            raise DataError(f"GREEN's prompt must have {_REFERENCE} and {_CANDIDATE} where the two reports go")
        self._respond, self._prompt = respond, prompt

    @classmethod
    def from_folder(cls, folder: PathLike, *, max_new_tokens: int = 2048) -> Green:
        """Load the model and its tokenizer from a folder (transformers' form), with the prompt in prompt.txt.

        Raises:
            CheckpointError: no such folder, no prompt.txt, or no model that transformers loads without a network.
        """
        folder = Path(folder)
        try:
            prompt = (folder / "prompt.txt").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{folder}: no prompt.txt that can be read; put the prompt that the model was trained with there, "
                f"with {_REFERENCE} and {_CANDIDATE} (GREEN's repository has it)"
            ) from error
        return cls(_responder(folder, max_new_tokens), prompt)

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """Columns "green" and "green-errors"."""
        answers = [read_answer(self._respond(self._filled(r, h))) for r, h in zip(refs, hyps, strict=True)]
        scores = [math.nan if a is None else a.score for a in answers]
        errors = [math.nan if a is None else float(a.errors) for a in answers]
        return [
            mean_column("green", "GREEN: matched findings over these and significant errors; mean of reports", scores),
            mean_column("green-errors", "GREEN: clinically significant errors in a report; mean of reports", errors),
        ]

    def _filled(self, ref: str, hyp: str) -> str:
        parts = re.split(r"(\{reference\}|\{candidate\})", self._prompt)
        return "".join({_REFERENCE: ref, _CANDIDATE: hyp}.get(part, part) for part in parts)


def read_answer(text: str) -> GreenAnswer | None:
    """Count what an answer lists; None where it lacks the significant errors or the matched findings."""
    sections = {m["title"].strip().lower(): m["body"] for m in _SECTION.finditer(text)}
    if _ERRORS not in sections or _MATCHED not in sections:
        return None
    matched = _COUNT.match(sections[_MATCHED])
    return GreenAnswer(int(matched[1]) if matched else 0, sum(map(int, _KIND.findall(sections[_ERRORS]))))


def _responder(folder: Path, max_new_tokens: int) -> Respond:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: transformers finds no causal language model with its tokenizer there"
        ) from error
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    def respond(prompt: str) -> str:
        text = _as_chat(tokenizer, prompt)
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(model.device)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    return respond


def _as_chat(tokenizer: Any, prompt: str) -> str:
    """The prompt in the tokenizer's chat form, if it has one; GREEN's reads "from" and "value", others the usual."""
    if not tokenizer.chat_template:
        return prompt
    turn = {"role": "user", "content": prompt, "from": "human", "value": prompt}
    return str(tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True))
