"""The sections, in the order of the page.

Each is a module with TITLE, TEXT, COLUMNS (key of a row -> heading), `cases`, which gives the
rows' first columns, and `measure`, which gives the others, in a process of its own.
"""

import archive_access
import archive_memory
import archive_parts
import archives
import default_fits
import defaults
import full_rank
import gpu
import pixels
import sizes
import snapshots
import throughput
import time_to_loss

SECTIONS = {
    module.__name__: module
    for module in (
        *(time_to_loss, snapshots, pixels, full_rank, throughput, gpu),
        *(default_fits, sizes, defaults),
        *(archives, archive_parts, archive_access, archive_memory),
    )
}
