"""Other people's copies of a data set -> classes of images. One file per source format, recognised by content.

    items.py     a file, in a folder or an archive      archives.py  zip, tar, tar.gz
    kinds.py     what a file is, by content             limits.py    how much a file may ask for
    table.py     CSV                                    lists.py     which class is in which split
    rows.py      which file a row of a CSV names        sources.py   what they hold of the wanted classes
    plan.py      which images are taken                 reader.py    reads, decodes and checks them
    build.py     writes the store                       turn.py      one `prepare` at a time
    existing.py  the store that is there already        silence.py   keeps libtiff off the terminal
    images.py    a file's bytes -> pixels               near.py      near-copies of images

    pickles.py   learn2learn / Ren, and MetaOptNet      unpickle.py  reads pickles, executes nothing
    unpickle_names.py  the only names they may use
    arrays.py    images that come as arrays             cifar.py     CIFAR-10 and CIFAR-100
    idx.py       MNIST, Fashion-MNIST                   svhn.py      SVHN
    matlab.py    .mat files, which SVHN consists of     ilsvrc.py    raw ImageNet's names
    imagenet.py  ImageNet, left in its files            tinyimagenet.py  Tiny ImageNet's folder

Every foreign file is opened in `items.open_regular`, and every foreign image is decoded in `images.picture`.
"""
