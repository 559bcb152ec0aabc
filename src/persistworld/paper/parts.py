"""Tables of text in several parts, as Markdown and LaTeX: each part has columns of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persistworld.paper.table_latex import latex_text
from persistworld.paper.tables import write_text


@dataclass(frozen=True)
class Part:
    """A part of the page: caption, head, and rows of text."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def write_parts(folder: Path, name: str, title: str, parts: Sequence[Part], notes: Sequence[str], scale: str) -> None:
    """Write `folder`/`name`.md and .tex."""
    page = [f"# {title}", f"**Scale: {scale}**"]
    for part in parts:
        lines = [part.head, ["---"] * len(part.head), *part.rows]
        page.append(f"## {part.caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    page.append("\n".join(f"- {note}" for note in notes))
    write_text(folder / f"{name}.md", "\n\n".join(page) + "\n")
    write_text(folder / f"{name}.tex", _latex(name, title, parts, notes, scale))


def _latex(name: str, title: str, parts: Sequence[Part], notes: Sequence[str], scale: str) -> str:
    lines = [r"% \usepackage{booktabs,graphicx}", r"\begin{table*}[t]", r"\centering", r"\footnotesize"]
    lines += [rf"\caption{{{latex_text(title)}. Scale: {latex_text(scale)}.}}", rf"\label{{tab:{name}}}"]
    for part in parts:
        lines.append(rf"\par\smallskip\emph{{{latex_text(part.caption)}}}\par\smallskip")
        lines += [rf"\resizebox{{\textwidth}}{{!}}{{\begin{{tabular}}{{{'l' * len(part.head)}}}", r"\toprule"]
        lines += [" & ".join(map(latex_text, part.head)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(latex_text, row)) + r" \\" for row in part.rows]
        lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [r"\par\smallskip\parbox{\textwidth}{\scriptsize " + " ".join(map(latex_text, notes)) + "}", r"\end{table*}"]
    return "\n".join(lines) + "\n"
