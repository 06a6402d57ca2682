"""Other people's copies of a data set -> classes of images. One file a source format, recognised by content.

    items.py     a file, in a folder or an archive      archives.py   zip, tar, tar.gz
    kinds.py     what a file is, by content             table.py      CSV
    lists.py     which class is in which split          rows.py       which file a row of a CSV names
    pickles.py   learn2learn / Ren, and MetaOptNet      unpickle.py   reads pickles, executes nothing
    ilsvrc.py    raw ImageNet's names                   images.py     a file's bytes -> pixels
    sources.py   what there is of the wanted classes    plan.py       which images are taken
    build.py     checks, decodes and writes the store

Every foreign file is opened in `items.open_regular`, every image of one is decoded in `images.decode`.
"""
