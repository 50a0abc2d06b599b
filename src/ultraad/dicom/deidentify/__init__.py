"""``ultraad deidentify``: images that may leave the hospital, by the Basic Profile of DICOM PS3.15 annex E.

    secret        the key file: UIDs, pseudonyms and shifted dates that only its owner can link
    profile       what happens to each element of a header
    visible       which pixels stay: ultrasound regions, a given rectangle, and not what a person blanked
    pixels        frames, blanked and written anew, one at a time
    text          text that is burned into pixels, found by OCR
    review        what was found, shown to a person; what the person decided
    listing       the files below a folder, and those that are refused by name
    run           a folder to a folder

docs/dicom.md says what is done with which elements, and what this cannot promise.
"""
