"""The least a Python function can do: read a frame, parse it, answer it, over one socketpair.

The bench measures this round trip beside the platform's own. It knows nothing of Lambda.
"""

import json
import os
import struct

FD = 0
while True:
    head = os.read(FD, 65536)
    if not head:
        break
    (length,) = struct.unpack_from("<I", head)
    while len(head) < length + 4:
        head += os.read(FD, 65536)
    event = json.loads(head[4 : length + 4])
    answer = json.dumps({"statusCode": 200, "body": "hello " + event["name"]}).encode()
    os.write(FD, struct.pack("<I", len(answer)) + answer)
