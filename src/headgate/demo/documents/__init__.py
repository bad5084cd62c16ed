"""The sample documents of the demo, all written for it: what a small office might send to a document API."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Final


@dataclass(frozen=True, slots=True)
class Sample:
    """A document that comes with the package: its file name and the Content-Type to send it with."""

    name: str
    media_type: str

    def read(self) -> bytes:
        """The document's bytes."""
        return files(__name__).joinpath(self.name).read_bytes()


SAMPLES: Final = (
    Sample("services_agreement.txt", "text/plain"),
    Sample("release_notes.txt", "text/plain"),
    Sample("mieterbrief.txt", "text/plain"),
    Sample("note_de_service.txt", "text/plain"),
    Sample("readme.md", "text/markdown"),
    Sample("opening_hours.html", "text/html"),
    Sample("minutes.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
)


def sample(name: str) -> Sample:
    """The sample document of that file name. KeyError names what is not there."""
    for known in SAMPLES:
        if known.name == name:
            return known
    raise KeyError(name)
