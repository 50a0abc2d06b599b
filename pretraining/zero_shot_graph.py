"""``python -m pretraining.zero_shot_graph``: ``ultraad.zero_shot()`` as the graph that ships, for use without torch.

To be run after a change of the embedded backbone or of the zero-shot defaults; a test compares both.
"""

from __future__ import annotations

import ultraad
from ultraad.export.write import export
from ultraad.io.files import write_json
from ultraad.model.exported import CONFIG, SHIPPED

made = export(ultraad.zero_shot(), SHIPPED).config
facts = made.exported.model_copy(update={"speed": {}})  # of this machine; nobody else's
write_json(SHIPPED / CONFIG, made.model_copy(update={"exported": facts}).model_dump(mode="json"))
print(f"{SHIPPED}: largest differences from PyTorch {made.exported.parity}")
