"""LaTeX form of a table (needs the packages booktabs and graphicx)."""

from persistworld.paper.blocks import Block, Entry

ESCAPES = {"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#"}
SYMBOLS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "→": r"$\rightarrow$"}
METRIC_HEADS = (r"SSIM $\uparrow$", r"PSNR $\uparrow$", r"LPIPS $\downarrow$")


def latex_page(name: str, title: str, blocks: list[Block], notes: list[str], scale: str) -> str:
    """A `table*` float with one tabular per block and the notes below.

    Cells show the change from base but no interval, for lack of space. The csv and md files have the intervals.
    """
    parts = [r"% \usepackage{booktabs,graphicx}", r"\begin{table*}[t]", r"\centering", r"\footnotesize"]
    parts.append(rf"\caption{{{latex_text(title)}. Scale: {latex_text(scale)}.}}")
    parts.append(rf"\label{{tab:{name}}}")
    for block in blocks:
        columns = 3 * len(block.groups)
        head = " & ".join(rf"\multicolumn{{3}}{{c}}{{{latex_text(group)}}}" for group in block.groups) + " &" * len(block.extra)
        rules = " ".join(rf"\cmidrule(lr){{{3 * i + 2}-{3 * i + 4}}}" for i in range(len(block.groups)))
        parts.append(rf"\par\smallskip\emph{{{latex_text(block.caption)}}}\par\smallskip")
        parts.append(rf"\resizebox{{\textwidth}}{{!}}{{\begin{{tabular}}{{l{'r' * (columns + len(block.extra))}}}")
        parts += [r"\toprule", rf" & {head} \\", rules]
        heads = [latex_text(block.first), *METRIC_HEADS * len(block.groups), *map(latex_text, block.extra)]
        parts += [rf"{' & '.join(heads)} \\", r"\midrule"]
        parts += [rf"{latex_text(row)} & {' & '.join(_entry(entry) for entry in entries)} \\" for row, entries in block.rows]
        parts += [r"\bottomrule", r"\end{tabular}}"]
    parts.append(r"\par\smallskip\parbox{\textwidth}{\scriptsize " + " ".join(latex_text(note) for note in notes) + "}")
    parts.append(r"\end{table*}")
    return "\n".join(parts) + "\n"


def _entry(entry: Entry) -> str:
    value = rf"\textbf{{{latex_text(entry.value)}}}" if entry.best else latex_text(entry.value)
    value = rf"\underline{{{value}}}" if entry.second else value
    return value + (f" ({latex_text(entry.change)})" if entry.change else "")


def latex_text(text: str) -> str:
    """`text` with LaTeX's special characters escaped."""
    for plain, escaped in {**ESCAPES, **SYMBOLS}.items():
        text = text.replace(plain, escaped)
    return text
