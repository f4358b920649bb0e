"""A function that is run once in every blank Instance, before there is another: it has something of most
that functions have, and does nothing."""

import os as system
import sys
from os import path

NAMES = {"a": [1, 2.5, None], **{}}


class Thing(Exception):
    kind: str = "thing"

    def __init__(self, *values, **named):
        super().__init__(f"{len(values)!r} of {named} in {path.join(system.sep, sys.platform)}")


def handler(event, context):
    try:
        names = [name for name in NAMES if name.startswith("a") and event]
        while names:
            names.pop()
        return {"body": "%s" % event, "count": len(NAMES) + 1, "for": context.aws_request_id}
    except (KeyError, Thing) as error:
        raise ValueError(lambda: error) from error
