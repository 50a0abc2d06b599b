"""Results as DICOM objects that refer to the image and the frame: what a PACS stores and a viewer shows.

    objects       the kinds by name
    source        what the objects take from the image that was predicted: patient, study, size, frame time
    findings      what a run found in one DICOM file, as the objects tell it: frames, lesions, key frames
    parts         codes, UIDs and the modules that all objects share
    segmentation  SEG       report  SR       presentation  PR       capture  SC       key_objects  KOS
    saving        a run's folder to a folder of objects
    checks        ``ultraad dicom validate``

Pixels are read in :mod:`ultraad.io`. docs/dicom.md is the conformance statement.
"""
