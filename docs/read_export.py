"""Read a file that `holdfast export --out` wrote, without Holdfast: Python's standard library and nothing else.

    python docs/read_export.py FILE.holdfast

Prints one line for each event, and checks what can be checked: the digest in the last line, that each chain follows
from what its events say, that it ends where its stream says, and that what is left of pruned events is what was pruned.
The exit code is 1 when something is wrong. The form is described in docs/moving.md, the digests in docs/history.md.
"""

import base64
import gzip
import json
import sys
from hashlib import sha256


def payload_of(line):
    """The payload as it was stored; None for none, or one that was destroyed."""
    if "payload64" in line:
        return base64.b64decode(line["payload64"])
    return line["payload"].encode() if "payload" in line else None


def read(path):
    """Each line that holds an event, and what is wrong with it (None: nothing); then (None, ...) for the whole file."""
    chains, ends, kept, digest, last = {}, {}, {}, sha256(), None
    with gzip.open(path, "rb") as file:
        for data in file:
            last = json.loads(data)
            if last.get("line") == "end":
                break
            digest.update(data)
            if last.get("line") == "stream":
                name = last["stream"]
                chains[name] = sha256(b"holdfast stream\x00" + name.encode()).digest()
                ends[name] = last["digest"]
            elif last.get("line") == "kept":  # of an event that was pruned: the chain goes on behind its digest
                name, leaf = last["stream"], bytes.fromhex(last["digest"])
                kept.setdefault(name, sha256()).update(last["position"].to_bytes(8, "big") + leaf)
                chains[name] = leaf
            elif last.get("line") == "event":
                header, payload = last["header"].encode(), payload_of(last)
                of_payload = bytes.fromhex(last.get("payload_digest", "00" * 32))
                framed = len(header).to_bytes(8, "big") + header
                chain = sha256(b"\x00" + chains[last["stream"]] + framed + of_payload).digest()
                chains[last["stream"]] = chain
                wrong = None if chain.hex() == last["digest"] else "its digest does not follow"
                if payload is not None and sha256(bytes.fromhex(last["salt"]) + payload).digest() != of_payload:
                    wrong = "its payload is another"
                if last["stream"] in kept and kept.pop(last["stream"]).hexdigest() != json.loads(header).get("leaves"):
                    wrong = "what is left of the events before it is not what was pruned"
                yield last, wrong
    if last.get("line") != "end" or last["sha256"] != digest.hexdigest():
        yield None, "the file was cut off or changed"
    for name, end in ends.items():
        if chains[name].hex() != end:
            yield None, f"stream {name} does not end where it says"


if __name__ == "__main__":
    problems = 0
    for event, wrong in read(sys.argv[1]):
        where = "the file" if event is None else f"{event['stream']} {event['version']}"
        says = "" if event is None else json.loads(event["header"]).get("type", "")
        print(f"{where}  {says}" if wrong is None else f"{where}  {says}  WRONG: {wrong}")
        problems += wrong is not None
    sys.exit(1 if problems else 0)
