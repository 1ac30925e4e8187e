"""One measurement in a process of its own: `measure.py SECTION JSON`; the last line that it prints is the result."""

import json
import sys

from sections import SECTIONS

if __name__ == "__main__":
    print(json.dumps(SECTIONS[sys.argv[1]].measure(**json.loads(sys.argv[2]))))
