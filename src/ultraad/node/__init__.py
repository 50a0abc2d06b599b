"""A DICOM node: images come in over the network or a folder, results go out to other nodes.

    queue     what came and what has to go, on the disk: an image is acknowledged when it is there
    intake    C-ECHO, C-STORE and storage commitment; a watched folder
    work      predict what waits, one image at a time
    send      store the objects at the peers, with bounded retries
    peers     addresses and TLS
    sockets   closes those that pynetdicom leaves open
    node      the threads, from start to stop

A process that is killed at any moment continues where it was: :mod:`.queue` says how.
"""
