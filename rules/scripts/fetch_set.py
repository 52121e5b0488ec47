"""Fetch a set that the config names in `published_sets`; one of another shape is refused before any training."""

from emergent_misalignment.data.chats import each_chat
from emergent_misalignment.data.published import PublishedFile, fetch
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    fetch(PublishedFile(**snakemake.params.file), snakemake.params.mirror, snakemake.output[0])
    for _ in each_chat(snakemake.output[0]):
        pass
