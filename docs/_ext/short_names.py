"""References by short names: :class:`VerletList` finds pyg_cgconv.potential.VerletList from any module, and
:meth:`Potential.save` the method.

A name that nothing here has, or two things have, stays a warning.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def find(app: Sphinx, env: BuildEnvironment, node: nodes.Element, text: nodes.Element) -> nodes.reference | None:
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target:
        return None
    objects = env.domains["py"].objects
    found = {(entry.docname, entry.node_id): name for name, entry in objects.items() if name.endswith("." + target)}
    if len(found) != 1:
        return None
    ((document, anchor), name), *_ = found.items()
    return make_refnode(app.builder, node["refdoc"], document, anchor, text, name)


def setup(app: Sphinx) -> dict:
    app.connect("missing-reference", find)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
