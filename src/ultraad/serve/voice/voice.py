"""Labels by voice in a project: what can be said, how, and what was."""

from __future__ import annotations

from ultraad.errors import ConfigError
from ultraad.serve.project import Project
from ultraad.serve.schemas_voice import HeardWord, HowSaid, Silent, VoiceInfo, Word
from ultraad.serve.voice.clip import LONGEST, RATE
from ultraad.serve.voice.ear import Ear, installed
from ultraad.serve.voice.hear import MISSING

_KEY = "said"  # of the setting: {class: how it is said}


class Voice:
    """Hears for one project.

    Args:
        project: Open.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._ear = Ear()

    def close(self) -> None:
        """End the child."""
        self._ear.close()

    def info(self) -> VoiceInfo:
        """What can be said, and what has to be done for the rest.

        Raises:
            DataError: If the recogniser does not answer.
        """
        info = VoiceInfo(installed=installed(), message=MISSING, longest=LONGEST, rate=RATE)
        if not info.installed:
            return info
        words, silent = self._ear.words(self._project.class_names, self._said)
        return info.model_copy(
            update={
                "message": "",
                "words": [Word(name=name, kind=kind) for name, kind in words],
                "silent": [Silent(name=name, why=why) for name, why in silent.items()],
                "said": self._said,
            }
        )

    def change(self, wanted: HowSaid) -> None:
        """Keep how a class is said; without words, as it is written.

        Raises:
            ConfigError: If there is no such class.
        """
        if wanted.name not in self._project.class_names:
            msg = f"there is no class {wanted.name!r}; choose one of {', '.join(self._project.class_names)}"
            raise ConfigError(msg)
        said = {name: words for name, words in self._said.items() if name != wanted.name}
        self._project.database.set(said=said if wanted.said is None else {**said, wanted.name: wanted.said})

    def hear(self, clip: bytes) -> HeardWord:
        """What was said in a clip, which is kept nowhere.

        Raises:
            MissingExtraError: If PocketSphinx is not installed.
            DataError: If nothing can be heard in the clip, with the reason.
        """
        heard = self._ear.hear(clip, self._project.class_names, self._said)
        if heard is None:
            return HeardWord(text="not understood")
        kind = "class" if heard in self._project.class_names else "command"
        return HeardWord(word=Word(name=heard, kind=kind), text=heard)

    @property
    def _said(self) -> dict[str, str]:
        """{class: how it is said}, without classes that are not there any more."""
        kept: dict[str, str] = self._project.database.setting(_KEY) or {}
        return {name: words for name, words in kept.items() if name in self._project.class_names}
