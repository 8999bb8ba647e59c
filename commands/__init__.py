"""The verbs of the ``handscope`` command, one module a group; each has ``add(verbs)``, which adds them to a parser.

Heavy libraries are imported inside the verbs, so that help and mistakes are answered at once.
"""
