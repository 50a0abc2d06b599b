"""What happens to each element of a header: PS3.15 table E.1-1, with rules for what the table does not name.

The table comes from dicom-anonymizer (Kitware), which follows the current edition. Its own engine is not used: it looks
at the outermost level only, and draws its UIDs at random. Here every rule holds on every level of nested sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cache
from types import ModuleType

from pydicom.datadict import dictionary_has_tag, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from ultraad import __version__
from ultraad.dicom.deidentify.secret import Secret
from ultraad.dicom.parts import Code, item
from ultraad.errors import Caught, ConfigError
from ultraad.io.dicom_header import text_of, value_of
from ultraad.io.faults import Faults, keeping_remarks
from ultraad.io.names import is_nobody
from ultraad.model.runtimes import require

EDITION = "2026c"
_TABLE = f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{EDITION}"
_CODES = {  # PS3.16 CID 7050
    "profile": Code("113100", "DCM", "Basic Application Confidentiality Profile"),
    "pixels": Code("113101", "DCM", "Clean Pixel Data Option"),
    "dates": Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": Code("113108", "DCM", "Retain Patient Characteristics Option"),
    "device": Code("113109", "DCM", "Retain Device Identity Option"),
}
RETAINED: dict[str, tuple[str, ...]] = {
    "dates": (
        *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "InstanceCreationDate"),
        *("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime"),
    ),
    "patient": ("PatientSex", "PatientAge", "PatientSize", "PatientWeight"),
    "device": ("StationName", "DeviceSerialNumber", "DeviceUID", "UDISequence", "TransducerIdentificationSequence"),
}
"""The options of the profile, and what each keeps: of ``dates``, days are shifted; times of day stay."""
_CLASSIC = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(6|6\.1|3|3\.1|7|7\.[1-4])")
"""Ultrasound and secondary capture: what the table removes "unless required" is type 3 there, PS3.3 A.6 to A.8."""
_WHOLE_GROUPS = (0x0012, 0x0400)  # clinical trial; signatures and encrypted originals
_METHOD = ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence")
_UNCLEAR = frozenset({"PN", "DA", "DT", "TM", "LT", "ST", "UT", "UC", "UN", "UR", "AE", "OB", "OW", "OF", "OD", "OL"})
_OF_PIXELS = (0x0028, 0x7FE0)  # groups whose binary elements are tables and pixels
_STANDARD_ROOT = "1.2.840.10008."
_CLASSES = ("SOPClassUID", "ReferencedSOPClassUID")
_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName")
_PERSONS = ("OperatorsName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "RequestingPhysician")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate", "PatientTelephoneNumbers")
_LEAST_NAME, _LEAST_NUMBER = 3, 4  # letters of a name, digits of a number; shorter ones stand in too many words
_OLDEST = 89  # years; older people are few, 45 CFR 164.514(b)(2)(i)(C)


class Profile:
    """The Basic Profile with the options of a user.

    Args:
        secret: For UIDs, pseudonyms and dates.
        retain: Any of :data:`RETAINED`.

    Raises:
        ConfigError: If there is no such option.
        MissingExtraError: If the table is not installed.
    """

    def __init__(self, secret: Secret, retain: Iterable[str] = ()) -> None:
        self.secret, self.retain = secret, frozenset(retain)
        if unknown := sorted(self.retain - set(RETAINED)):
            msg = f"there is no option {unknown[0]!r} of the profile; wanted any of {', '.join(RETAINED)}"
            raise ConfigError(msg)
        self._kept = {tag_for_keyword(name): option for option in self.retain for name in RETAINED[option]}
        self._table = table()

    def patient(self, ds: Dataset) -> str:
        """The pseudonym of a patient; of the study if nobody is named."""
        number, issuer = text_of(ds, "PatientID"), text_of(ds, "IssuerOfPatientID")
        if number is not None and not is_nobody(number):
            return self.secret.name("patient", issuer or "", number)
        return self.secret.name("study", text_of(ds, "StudyInstanceUID") or text_of(ds, "SOPInstanceUID") or "")

    def apply(self, ds: Dataset) -> list[str]:
        """Change a data set in place, pixels aside. Nothing that could quote the patient is logged.

        Returns:
            Keywords of elements that were removed although no rule names them: they could not be read, or held a name
            or a number of the patient.

        Raises:
            DataError: If the data set cannot be read.
        """
        with keeping_remarks(), Faults("the DICOM header cannot be de-identified", about="the header"):
            ds.decode()
            words, patient = list(_words(ds)), self.patient(ds)
            classic = _CLASSIC.fullmatch(text_of(ds, "SOPClassUID") or "") is not None
            earlier = [one for one in value_of(ds, _METHOD[2]) or () if text_of(one, "CodingSchemeDesignator") == "DCM"]
            removed = [*self._clean(ds, patient, classic=classic), *_unsay(ds, words)]
            ds.SpecificCharacterSet = "ISO_IR 192"
            ds.PatientID = ds.PatientName = patient
            ds.PatientIdentityRemoved = "YES"
            ds.LongitudinalTemporalInformationModified = "MODIFIED" if "dates" in self.retain else "REMOVED"
            self._sign(ds, earlier)
        return removed

    def declare(self, ds: Dataset) -> None:
        """Say that the pixels are clean, too: regions were blanked, text was looked for, and a person confirmed."""
        ds.BurnedInAnnotation = "NO"
        if all(text_of(one, "CodeValue") != _CODES["pixels"].value for one in ds.DeidentificationMethodCodeSequence):
            ds.DeidentificationMethodCodeSequence.append(item(_CODES["pixels"]))

    def _sign(self, ds: Dataset, earlier: list[Dataset]) -> None:
        names = ["profile", *(name for name in _CODES if name in self.retain)]
        ds.DeidentificationMethod = [f"ultraad {__version__}"[:64], f"DICOM PS3.15 {EDITION}, annex E, Basic Profile"]
        known = {text_of(one, "CodeValue") for one in earlier}
        kept = [item(Code(*(text_of(one, name) or "" for name in _CODE_PARTS))) for one in earlier]
        ds.DeidentificationMethodCodeSequence = [
            *kept,
            *(item(_CODES[name]) for name in names if _CODES[name].value not in known),
        ]

    def _clean(self, ds: Dataset, patient: str, *, classic: bool) -> Iterator[str]:
        for tag in list(ds.keys()):
            with Caught() as caught:
                if _goes_unread(tag) or not self._handle(ds[tag], patient, classic=classic):
                    del ds[tag]
                    continue
                if ds[tag].VR == "SQ":
                    for inner in ds[tag].value:
                        yield from self._clean(inner, patient, classic=classic)
            if caught.error is not None:  # a value that breaks its type
                if tag in ds:
                    del ds[tag]
                yield keyword_for_tag(tag)

    def _handle(self, element: DataElement, patient: str, *, classic: bool) -> bool:
        """Change an element; False if it has to go."""
        tag, vr = element.tag, element.VR
        option = self._kept.get(int(tag))
        if option == "dates":
            return self._shift(element, patient)
        if option is not None:
            _round_age(element)
            return True
        if element.keyword == "PatientID":
            element.value = patient
            return True
        if element.keyword == "DeviceSerialNumber":
            element.value = self.secret.name("device", str(element.value))
            return True
        rule = _rule(self._table.get(int(tag)), classic=classic)
        if rule is None:
            return self._unnamed(element)
        if rule == "U" and vr == "UI":
            element.value = self._uids(element)
        elif rule == "Z":
            element.clear()
        elif rule == "D":
            if vr not in _DUMMIES:
                return False
            element.value = _DUMMIES[vr]
        return rule in ("Z", "D", "K") or (rule == "U" and vr == "UI")

    def _unnamed(self, element: DataElement) -> bool:
        """An element that the table does not name, so it holds no identity; except what could, by its type."""
        if element.VR == "UI" and element.keyword not in _CLASSES:
            element.value = self._uids(element)
        return element.VR not in _UNCLEAR or (element.tag.group in _OF_PIXELS and element.VR[0] == "O")

    def _uids(self, element: DataElement) -> list[str] | str | None:
        values = [str(one) for one in (element.value if element.VM > 1 else [element.value]) if one]
        fresh = [one if one.startswith(_STANDARD_ROOT) else self.secret.uid(one) for one in values]
        return fresh if len(fresh) > 1 else fresh[0] if fresh else None

    def _shift(self, element: DataElement, patient: str) -> bool:
        text = str(element.value or "")
        if element.VR == "TM" or not text:
            return True
        if re.match(r"\d{8}", text) is None:  # also one of the form before DICOM, 1997.04.24
            element.clear()
            return True
        day = datetime.strptime(text[:8], "%Y%m%d") - timedelta(days=self.secret.days(patient))
        element.value = f"{day:%Y%m%d}{text[8:]}"
        return True


_CODE_PARTS = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
_DUMMIES = {  # for "D", PS3.15 E.3: of the right type, and plainly no real value
    **dict.fromkeys(("CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "UL", "US"), 0),
    **{"AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000"},
}


@cache
def table() -> dict[int, str]:
    """{tag: action} of table E.1-1, such as ``"X/Z"``; repeating groups, which go as a whole, are left out.

    Raises:
        MissingExtraError: If dicom-anonymizer is not installed, or no longer has this edition.
    """
    database: ModuleType = require(_TABLE, extra="deidentify")
    actions = ("D", "Z", "X", "U", "Z_D", "X_Z", "X_D", "X_Z_D", "X_Z_U_STAR")
    return {
        (tag[0] << 16) | tag[1]: action.replace("_STAR", "").replace("_", "/")
        for action in actions
        for tag in getattr(database, f"{action}_TAGS")
        if len(tag) == 2
    }


def _rule(action: str | None, *, classic: bool) -> str | None:
    """One of several actions: the mildest that the SOP class allows.

    In ultrasound and secondary capture images, what the table may remove or replace is type 3, and is removed, or
    type 2, and is emptied. In other classes it could be type 1, and gets a dummy. References to images stay (K), and
    point to the new UIDs.
    """
    if action is None or "/" not in action:
        return action
    if action == "X/Z/U":
        return "K"
    return ("Z" if action == "Z/D" else "X") if classic else ("Z" if action == "X/Z" else "D")


def _goes_unread(tag: BaseTag) -> bool:
    """Private and unknown elements, group lengths, overlays, curves, and whole groups that identify."""
    if keyword_for_tag(tag) in _METHOD:
        return True  # written anew
    repeating = 0x5000 <= tag.group < 0x5100 or 0x6000 <= tag.group < 0x6100
    unknown = tag.is_private or tag.element == 0 or not dictionary_has_tag(tag)
    return unknown or repeating or tag.group in _WHOLE_GROUPS


def _round_age(element: DataElement) -> None:
    found = re.fullmatch(r"(\d{3})Y", str(element.value)) if element.keyword == "PatientAge" else None
    if found is not None and int(found[1]) > _OLDEST:
        element.value = f"{_OLDEST + 1:03d}Y"


def _words(ds: Dataset) -> Iterator[re.Pattern[str]]:
    """What must not stand anywhere: the names and numbers of the patient, and the names of persons."""
    for name in (*_NAMES, *_PERSONS):
        for word in re.split(r"[\^=\s\\,.'\[\]]+", str(value_of(ds, name) or "")):
            if len(word) >= _LEAST_NAME and not is_nobody(word):
                yield re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    for name in _NUMBERS:
        number = str(value_of(ds, name) or "")
        if len(number) >= _LEAST_NUMBER and not is_nobody(number):
            yield re.compile(rf"(?<!\w){re.escape(number)}(?!\w)", re.IGNORECASE)


def _unsay(ds: Dataset, words: list[re.Pattern[str]]) -> Iterator[str]:
    """Remove the texts that still hold a name or a number."""
    for element in list(ds):
        if element.VR == "SQ":
            for inner in element.value:
                yield from _unsay(inner, words)
        elif element.VR in ("LO", "SH", "LT", "ST", "UT", "UC", "CS"):
            text = str(element.value)
            if any(word.search(text) for word in words):
                del ds[element.tag]
                yield element.keyword
