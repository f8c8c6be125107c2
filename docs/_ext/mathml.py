"""Formulas as MathML, written when the pages are built: browsers show them without scripts and without a network.

docutils has the translator; Sphinx only lacks the way to it. A formula that the translator does not know is a warning,
and so an error of the build.
"""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _plain_underscores(text: re.Match) -> str:
    return text[0].replace(r"\_", "_")


# What docutils does not know. Its parentheses grow by themselves, its text takes an underscore as it is, and an index
# would go below an accent or behind a prime.
UNKNOWN = {
    r"\\big(?![a-z])": "",
    r"'_": r"^{\\prime}_",
    r"\\dots(?![a-z])": r"\\ldots",
    r"\\text\{[^}]*\}": _plain_underscores,
    r"(\\(?:hat|bar)(?:\{(?:[^{}]|\{[^{}]*\})*\}| [a-zA-Z]))_": r"{\1{}}_",
}


def _mathml(self, node: nodes.Element, as_block: bool) -> str:
    formula = " ".join(node.astext().split())
    for command, replacement in UNKNOWN.items():
        formula = re.sub(command, replacement, formula)
    try:
        return tex2mathml(formula, as_block=as_block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return self.encode(node.astext())


def visit_inline(self, node: nodes.math) -> None:
    self.body.append(_mathml(self, node, as_block=False))
    raise nodes.SkipNode


def visit_block(self, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="formula"))
    self.body.append(_mathml(self, node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
