#!/bin/sh
# Sees to the packages that the build needs; the argument "developer" adds the tools for working on it, "browser"
# those that test the interactive pages, "docs" those that make the site, "bench" what is measured beside attest.
# Debian: installs what is missing as root, and otherwise prints how to. Elsewhere: prints what is needed.
set -eu

packages="g++ cmake ninja-build libeigen3-dev libhdf5-dev catch2 libcli11-dev nlohmann-json3-dev
  python3 python3-h5py python3-numpy python3-mpmath python3-pytest python3-yaml libmpfr-dev"
if [ "${1-}" = developer ]; then
  packages="$packages clang-format clang-tidy"
elif [ "${1-}" = browser ]; then
  packages="$packages chromium chromium-driver python3-selenium fonts-wqy-zenhei"
elif [ "${1-}" = bench ]; then
  packages="$packages libbenchmark-dev libopenblas-dev"
elif [ "${1-}" = docs ]; then
  packages="$packages python3-sphinx python3-myst-parser furo python3-matplotlib libjs-katex nodejs"
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  cat >&2 <<'END'
This is no Debian, so install these with the package manager at hand:
  a C++20 compiler with OpenMP, CMake >= 3.25, Ninja, HDF5 (C library), CLI11, nlohmann-json
  for the tests: Eigen 3, Catch2 (2.13 or 3), Python 3 with h5py and numpy
  for golden tensors: MPFR, and the Python package mpmath to check them
  for developers: clang-format and clang-tidy
  for the interactive pages: Chromium, its driver, Python's selenium and a Chinese font
  for benchmarks, both optional: Google Benchmark, OpenBLAS
  for the site: Sphinx, MyST-Parser, Furo, matplotlib, KaTeX in /usr/share/javascript/katex, Node.js
then build without make:
  cmake --preset release && cmake --build --preset release && ctest --preset release
END
  exit 1
fi

missing=
for package in $packages; do
  if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
    missing="$missing $package"
  fi
done
if [ -z "$missing" ]; then
  exit 0
fi

echo "missing packages:$missing" >&2
install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -ne 0 ]; then
  echo "install them with: sudo apt-get update && sudo $install" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
$install -qq >/dev/null
