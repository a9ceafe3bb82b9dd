# Splits a dump of many device cases into one small file a workload. Same bits, same names, less space.
"""usage: pack.py SOURCE.h5 FOLDER

Cases are named fp16_<workload>_<backend>. Datasets that cases share stay shared, by hard links, and datasets
of equal bits become shared. The result depends on the source and on the HDF5 and zlib versions alone.
"""

import hashlib
import os
import sys

import h5py

BACKENDS = ("cudnn", "efficient", "flash")


def workload_of(case):
    prefix, _, backend = case.rpartition("_")
    assert prefix.startswith("fp16_") and backend in BACKENDS, case
    return prefix.removeprefix("fp16_")


def copy_case(source, target, written):
    """written: datasets of the target file, by their type, shape and bits."""
    target.attrs.update(source.attrs)
    for part in ("spec", "contract", "about"):
        target.create_group(part).attrs.update(source[part].attrs)
    for part in ("in", "out"):
        for name, dataset in source[part].items():
            assert not dataset.attrs, dataset.name
            data = dataset[()]
            key = (data.dtype.str, data.shape, hashlib.sha256(data.tobytes()).digest())
            if key in written:
                target.require_group(part)[name] = written[key]
                continue
            written[key] = target.require_group(part).create_dataset(
                name, data=data, chunks=data.shape, compression="gzip", compression_opts=9, shuffle=True,
                track_times=False)


def check_same(source, target):
    assert dict(source.attrs) == dict(target.attrs) and set(source) == set(target)
    for part in ("spec", "contract", "about"):
        assert dict(source[part].attrs) == dict(target[part].attrs)
    for part in ("in", "out"):
        assert set(source[part]) == set(target[part])
        for name, dataset in source[part].items():
            got, want = target[part][name][()], dataset[()]
            assert got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()


def main(source_path, folder):
    with h5py.File(source_path, "r") as source:
        for workload in sorted({workload_of(case) for case in source}):
            path = os.path.join(folder, f"h200_fp16_{workload}.h5")
            cases = sorted(case for case in source if workload_of(case) == workload)
            with h5py.File(path, "w", libver="earliest") as target:
                target.attrs["attest_format"] = 1
                written = {}
                for case in cases:
                    copy_case(source[case], target.create_group(case), written)
            with h5py.File(path, "r") as target:
                assert sorted(target) == cases
                for case in cases:
                    check_same(source[case], target[case])
            print(f"{path}: {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
